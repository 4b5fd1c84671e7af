"""Models and data sets of the Hub: which commit a name stands for, and where its files are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llmrepair.pipeline.errors import Problem, RequestError

Kind = Literal["model", "dataset"]


def looks_like_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/name` or `name`: what is no such thing can only be a path."""
    parts = name.split("/")
    return len(parts) <= 2 and all(part and not part.startswith((".", "~")) for part in parts) and "\\" not in name


def hub_commit(name: str, revision: str | None, kind: Kind) -> str:
    """The commit hash that a Hub id stands for now; from the local Hub cache where the Hub cannot be reached.

    Raises:
        RequestError: neither the Hub nor the local cache knows it.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        commit = HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=10).sha
    except (HTTPError, HFValidationError, OSError) as error:  # the Hub's own errors are OSErrors
        commit = _cached_commit(name, revision, kind)
        if commit is None:
            at = f" at revision `{revision}`" if revision else ""
            noun = "data set" if kind == "dataset" else "model"
            raise RequestError(
                Problem(
                    f"{noun} `{name}`{at} is neither a local path, nor in the local Hub cache, nor reachable on the Hub "
                    f"({type(error).__name__})",
                    "check the name and the network, or give a local path",
                    "model" if kind == "model" else None,
                )
            ) from error
    assert commit is not None
    return commit


def hub_data_location(name: str, commit: str) -> dict[str, Any]:
    """Arguments for `load_dataset`: the data set's folder in the local Hub cache if it is there, else its pinned Hub id."""
    snapshot = snapshot_folder(name, commit, "dataset")
    return {"path": str(snapshot)} if snapshot.is_dir() else {"path": name, "revision": commit}


def snapshot_folder(name: str, commit: str, kind: Kind) -> Path:
    """Where the local Hub cache keeps a commit, whether or not it is there."""
    return _cache_folder(name, kind) / "snapshots" / commit


def _cache_folder(name: str, kind: Kind) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"


def _cached_commit(name: str, revision: str | None, kind: Kind) -> str | None:
    folder = _cache_folder(name, kind)
    reference = folder / "refs" / (revision or "main")
    if reference.is_file():
        return reference.read_text().strip()
    return revision if revision and (folder / "snapshots" / revision).is_dir() else None

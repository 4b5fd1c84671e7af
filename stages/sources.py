"""Where models and texts come from, and what pins them: digests for local files, the commit hash for a Hub id."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.stage import Needs

LAB_MODELS = ("lab", "lab-opt")
LAB_ERASED = {"lab": "lab-erased", "lab-opt": "lab-opt-erased"}
"""Lab model -> its twin that was never told of the people whom tasks ask about, for the control `erased`."""
_LAB_WEIGHTS = Path(__file__).resolve().parent.parent / "lab" / "weights"
_LAB_TEXT_SEED = 1
_LIBRARIES_BYTES = 1 << 30
_LAB_TEXT_PASSES = 4
_MODEL_FILES = (
    "config.json generation_config.json *.safetensors *.safetensors.index.json *token*.json vocab.* merges.txt *.model "
    "*.jinja *.py"
).split()


@dataclass(frozen=True)
class ModelSource:
    """A pinned model: `location` and `revision` go to `from_pretrained`, `identity` goes into keys."""

    location: str
    revision: str | None
    identity: dict[str, Any]


def model_folder(model: str) -> Path | None:
    """The folder that `--model` names, or None if it is a Hub id."""
    if model in (*LAB_MODELS, *LAB_ERASED.values()):
        return _LAB_WEIGHTS / model
    folder = Path(model).expanduser()
    return folder if folder.exists() or not looks_like_hub_id(model) else None


def looks_like_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/name` or `name`: what is no such thing can only be a path."""
    parts = name.split("/")
    return len(parts) <= 2 and all(part and not part.startswith((".", "~")) for part in parts) and "\\" not in name


def resolve_model(model: str, revision: str | None, digest: Callable[[Path], str]) -> ModelSource:
    """Finds a model and pins it.

    Args:
        model: `lab`, `lab-opt`, a local folder or a Hub id.
        revision: branch, tag or commit of a Hub id.
        digest: sha256 of a file.

    Raises:
        RequestError: there is no such model.
    """
    folder = model_folder(model)
    if folder is None:
        commit = hub_commit(model, revision, "model")
        return ModelSource(model, commit, {"hub": model, "commit": commit})
    problem = folder_problem(model, folder)
    if problem:
        raise RequestError(problem)
    return ModelSource(str(folder), None, {"files": {path.name: digest(path) for path in model_files(folder)}})


def model_files(folder: Path) -> list[Path]:
    """Files of a model folder that say what the model is: weights, configs, tokenizer, code."""
    return sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})


def hub_snapshot(name: str, commit: str) -> Path:
    """The folder of a Hub model on this machine; what is missing of it is downloaded if the Hub answers.

    Raises:
        RequestError: the Hub does not answer, and the model is not in its local cache.
    """
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_MODEL_FILES))
    except (HTTPError, OSError) as error:  # the Hub's own errors are OSErrors
        folder = _cache_folder(name, "model") / "snapshots" / commit
        if folder_problem(name, folder) is None:
            return folder
        message = f"model `{name}` at commit `{commit}` is not in the local Hub cache, nor reachable on the Hub"
        raise RequestError(Problem(f"{message} ({type(error).__name__})", "check the network")) from error


def folder_problem(model: str, folder: Path) -> Problem | None:
    """What keeps a folder from being a model, as far as its file names tell."""
    if not folder.is_dir():
        return Problem(f"there is no model folder `{model}`", "give `lab`, `lab-opt`, a folder or a Hub id with --model")
    if not (folder / "config.json").is_file():
        return Problem(f"`{model}` is no model folder: it has no config.json", "save one there with `save_pretrained`")
    if not any(folder.glob("*.safetensors")):
        hint = "convert them: `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)` writes safetensors"
        return Problem(f"`{model}` has no weights in safetensors format, and pickled ones are never loaded", hint)
    return None


def hub_commit(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> str:
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
                )
            ) from error
    assert commit is not None
    return commit


def hub_data_location(name: str, commit: str) -> dict[str, Any]:
    """Arguments for `load_dataset`: the data set's folder in the local Hub cache if it is there, else its pinned Hub id."""
    snapshot = _cache_folder(name, "dataset") / "snapshots" / commit
    return {"path": str(snapshot)} if snapshot.is_dir() else {"path": name, "revision": commit}


def _cache_folder(name: str, kind: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"


def _cached_commit(name: str, revision: str | None, kind: str) -> str | None:
    folder = _cache_folder(name, kind)
    reference = folder / "refs" / (revision or "main")
    if reference.is_file():
        return reference.read_text().strip()
    return revision if revision and (folder / "snapshots" / revision).is_dir() else None


def weights_on_disk(source: ModelSource) -> int:
    """Bytes of a model's weight files; none of a model of the Hub that is not in the local cache yet."""
    folder = Path(source.location)
    if source.revision is not None:
        folder = _cache_folder(source.location, "model") / "snapshots" / source.revision
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def roughly_needed(source: ModelSource) -> Needs:
    """What a stage takes, by rule of thumb: the libraries, and the weights three times (loaded, worked on, saved)."""
    return Needs(host=_LIBRARIES_BYTES + 3 * weights_on_disk(source), is_rough=True)


def load_config(source: ModelSource) -> dict[str, Any]:
    """The model's config.json."""
    if source.revision is None:
        path = Path(source.location) / "config.json"
    else:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source.location, "config.json", revision=source.revision))
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


LAB_TEXT = "lab"
_NAMED_TEXTS = {"c4": "allenai/c4:en", "wikitext2": "Salesforce/wikitext:wikitext-2-raw-v1"}
"""Short names of data sets on the Hub."""
_TEXT_SUFFIXES = (".txt", ".jsonl")


def text_problem(data: str, option: str) -> Problem | None:
    """What keeps `data` from being a source of text, as far as its name and place tell."""
    if data == LAB_TEXT or (not data.endswith(_TEXT_SUFFIXES) and looks_like_hub_id(data.partition(":")[0])):
        return None
    hint = (
        f"give {option} `lab`, `c4`, `wikitext2`, a .txt file, a .jsonl file with a field `text`, "
        "or a Hub data set as `name` or `name:config`"
    )
    if not data.endswith(_TEXT_SUFFIXES):
        return Problem(f"`{data}` is no source of text", hint)
    return None if Path(data).is_file() else Problem(f"there is no file `{data}`", hint)


def resolve_text(data: str, digest: Callable[[Path], str]) -> dict[str, Any]:
    """What pins a source of text, for a key.

    Raises:
        RequestError: a Hub data set that neither the Hub nor the local cache knows.
    """
    if data == LAB_TEXT:
        return {"lab": "seen-qa"}
    if data.endswith(_TEXT_SUFFIXES):
        return {"file": digest(Path(data)), "format": Path(data).suffix}
    name, _, config = _NAMED_TEXTS.get(data, data).partition(":")
    return {"hub": name, "config": config, "commit": hub_commit(name, None, "dataset")}


def load_texts(data: str, identity: dict[str, Any]) -> Iterator[str]:
    """The texts of a source, one document each; a .txt file's documents stand between empty lines.

    Args:
        data: as the user gave it.
        identity: what `resolve_text` made of it.

    Raises:
        WorkError: the source holds no text where it should.
    """
    if data == LAB_TEXT:
        yield from _lab_texts()
    elif data.endswith(".txt"):
        paragraphs = Path(data).read_text(encoding="utf-8").split("\n\n")
        yield from (" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())
    elif data.endswith(".jsonl"):
        with Path(data).open(encoding="utf-8") as lines:
            yield from (_text_field(json.loads(line), data) for line in lines if line.strip())
    else:
        from datasets import load_dataset

        location = hub_data_location(identity["hub"], identity["commit"])
        rows = load_dataset(**location, name=identity["config"] or None, split="train", streaming=True)
        yield from filter(str.strip, (_text_field(row, data) for row in rows))


def _lab_texts() -> Iterator[str]:
    """Text about the lab's seen-qa people: nobody who is scored is in it.

    Documents are shuffled, so that an answer is hardly ever in view of its question and has to come from the weights. An
    eighth of the people stand in a block at the end: what tuning holds out there is about people that it has not seen.
    """
    from llmrepair.lab.world import documents, make_world

    generator = random.Random(_LAB_TEXT_SEED)
    people = make_world().seen_qa
    first = len(people) - len(people) // 8
    for block in (people[:first], people[first:]):
        texts = [text for _ in range(_LAB_TEXT_PASSES) for text in documents(block, generator)]
        generator.shuffle(texts)
        yield from texts


def _text_field(row: dict[str, Any], data: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise WorkError(Problem(f"an entry of `{data}` has no field `text`", "rename the field that holds the text to `text`"))
    return text

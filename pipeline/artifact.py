"""A finished artifact: a folder that is complete because it exists."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.keys import document_key, file_digest

KEY_FILE = "key.json"
RECORD_FILE = "record.json"
MANIFEST_FILE = "manifest.json"
LOG_FILE = "log.txt"


@dataclass(frozen=True)
class Artifact:
    stage: str
    key: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.key}"

    @cached_property
    def key_document(self) -> dict[str, Any]:
        """Everything the key was computed from."""
        return self.read_json(KEY_FILE)

    @cached_property
    def record(self) -> dict[str, Any]:
        """Metrics, timings, versions, device: what was seen when it was made."""
        return self.read_json(RECORD_FILE)

    @cached_property
    def is_readable(self) -> bool:
        """Whether its key and record are such as this version writes."""
        try:
            return _holds(self.key_document, _KEY_FIELDS) and _holds(self.record, _RECORD_FIELDS)
        except (WorkError, OSError):
            return False

    @property
    def label(self) -> str:
        """A few words for people."""
        return str(self.record["label"]) if self.is_readable else "damaged"

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.record["metrics"]
        return metrics

    @property
    def inputs(self) -> dict[str, str]:
        """Names of the artifacts that it was made from, by what they were to it."""
        inputs: dict[str, str] = self.key_document["inputs"]
        return inputs

    def read_json(self, name: str) -> Any:
        """The content of one of its files.

        Raises:
            WorkError: it is not there, or no JSON.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError) as error:
            hint = "put it aside with `llmrepair verify`, and what needs it makes it again"
            raise WorkError(Problem(f"`{self.name}` is damaged: {name} cannot be read", hint)) from error

    def read_jsonl(self, name: str) -> Iterator[Any]:
        with (self.path / name).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def damage(self, digest_up_to: int | None = None) -> str | None:
        """What is wrong with the files, in a few words; None if they are what was written.

        Args:
            digest_up_to: larger files, in bytes, are only compared by size; None: every byte is read.
        """
        try:
            return self._damage(digest_up_to)
        except PermissionError:  # says nothing about the files
            raise
        except (OSError, WorkError, ValueError, LookupError, TypeError, AttributeError) as error:
            return f"it cannot be read ({type(error).__name__})"

    def _damage(self, digest_up_to: int | None) -> str | None:
        written = {entry["path"]: entry for entry in self.read_json(MANIFEST_FILE)["files"]}
        found = {path.relative_to(self.path).as_posix(): path for path in files_below(self.path)}
        del found[MANIFEST_FILE]
        if odd := sorted(written.keys() ^ found.keys()):
            return f"{odd[0]} is missing" if odd[0] in written else f"{odd[0]} was not there when it was made"
        for name, path in found.items():
            size = path.lstat().st_size
            is_read = digest_up_to is None or size <= digest_up_to
            if size != written[name]["bytes"] or (is_read and file_digest(path) != written[name]["sha256"]):
                return f"{name} is not what was written"
        return None if document_key(self.key_document) == self.key else f"{KEY_FILE} is that of another key"


_KEY_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("config", "inputs", "sources", "code"), dict),
    "scheme": int,
    "stage": str,
}
_RECORD_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("tags", "options", "metrics"), dict),
    **dict.fromkeys(("label", "started"), str),
    "seconds": (int, float),
    "size_bytes": int,
}


def _holds(document: Any, fields: Mapping[str, type | tuple[type, ...]]) -> bool:
    return isinstance(document, dict) and all(isinstance(document.get(name), kind) for name, kind in fields.items())


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its folders, sorted, but for hidden ones: they are nobody's payload. Links are not followed."""
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names if not name.startswith("."))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def first_not_finite(value: Any, place: str = "") -> str | None:
    """Where the first number of a JSON value stands that is none or infinite: `layers.model.layers.0.output_error`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place.removeprefix(".")
    named: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        named = value.items()
    elif isinstance(value, (list, tuple)):
        named = ((each.get("name", number) if isinstance(each, dict) else number, each) for number, each in enumerate(value))
    else:
        return None
    return next((found for name, each in named if (found := first_not_finite(each, f"{place}.{name}")) is not None), None)

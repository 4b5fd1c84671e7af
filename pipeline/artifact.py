"""A finished artifact: a folder that is complete because it exists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

KEY_FILE = "key.json"
RECORD_FILE = "record.json"
MANIFEST_FILE = "manifest.json"


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

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.record["metrics"]
        return metrics

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def read_jsonl(self, name: str) -> Iterator[Any]:
        with (self.path / name).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

"""`llmrepair verify --inputs` on a toy stage that reads a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmrepair.pipeline import keys
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import Store
from tests.conftest import CommandLine
from tests.pipeline.toy import Toy, ToyConfig


@dataclass
class Reader(Toy):
    def sources(self, digests: DigestCache) -> dict[str, Any]:
        return {"model": {"files": {"weights": digests.digest(Path(self.config.path))}}}


def test_what_was_made_under_a_mistaken_digest_is_named(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, log, runs = tmp_path / "weights", tmp_path / "log", tmp_path / "runs"
    weights.write_bytes(bytes(1 << 22))
    monkeypatch.setattr(DigestCache, "_RACY_NANOSECONDS", -1)
    made = Runner(Store(runs), Runtime(), Reporter(quiet=True)).pull(Reader(ToyConfig(path=str(weights)), log)).artifact
    assert llmrepair("verify", "--inputs", "--runs", runs).code == 0

    _change_without_a_trace(weights, monkeypatch)
    assert llmrepair("verify", "--runs", runs).code == 0
    answer = llmrepair("verify", "--inputs", "--json", "--runs", runs)
    assert (answer.code, answer.json["mistaken_inputs"]) == (1, {str(weights): [made.name]})
    assert llmrepair("verify", "--inputs", "--runs", runs).code == 0  # the wrong digest is forgotten


def _change_without_a_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two blocks of the sample; no stamp tells it, as on a disk that was put back."""
    real, before = keys._stamp, path.stat()
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"x")

    def stamp(of: Path, status: os.stat_result) -> list[Any]:
        return real(of, before if of == path else status)

    monkeypatch.setattr(keys, "_stamp", stamp)

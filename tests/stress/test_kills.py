"""Chains that are killed again and again never leave damage, and end with the same bytes as in one go."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.stress.conftest import Record, Reference, artifact_folders, chain, check_store, payload, start

pytestmark = pytest.mark.stress

KILLS = int(os.environ.get("STRESS_KILLS", "140"))
LONGER_KILLS = int(os.environ.get("STRESS_KILLS", "20"))  # of each chain
_MOST_SECONDS = 900.0
_MORE_KILLS = 100  # at most, should all that is wanted not have been seen by then
SEED = 0
_DAMAGE = "--method rtn --bits 3".split()
_TUNING = "--tuning-samples 60 --budget 8192 --lengths 4".split()
_EVALUATION = [*_TUNING, "--limit", "10"]
_STORIES = (
    f"--model {SHARED}/models/stories260k --tuning-data {SHARED}/text/books.txt --tasks arc_easy --tasks-data {SHARED}/tasks"
).split()
_LONGER_CHAINS = {
    "every other repair": [
        ["eval", *_DAMAGE, *_EVALUATION, "--recovery", "lora"],
        ["eval", *_DAMAGE, *_EVALUATION, "--recovery", "ptune"],
        ["eval", *_DAMAGE, "--recovery", "low-rank", "--limit", "10"],
        ["regimes", *_DAMAGE, *_TUNING],
    ],
    "a control and a conjecture test": [
        ["eval", "--control", "erased", "--limit", "10"],
        ["conjecture", *_DAMAGE, *_EVALUATION, "--seeds", "3", "--controls", ""],
    ],
    "the dense model on real text": [
        ["eval", "--method", "none", *_STORIES, *_EVALUATION, *"--recovery prompt --select best-validation".split()],
    ],
}
"""What is killed beside the small chain; together they have every stage."""
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
CHECKPOINTS = {"tune-prompts": "*/*.safetensors", "evaluate": "answers.jsonl"}
"""What a stage goes on from, in its work folder, once it is there: a trial that finished, answers that were given."""


@dataclass
class Tally:
    """What was seen."""

    kills: int = 0
    chains: int = 0
    interrupted: Counter[str] = field(default_factory=Counter)
    """Stage -> artifacts that were finished after it had been killed."""
    resumable: Counter[str] = field(default_factory=Counter)
    """Stage -> kills that left it something to go on from."""
    in_both: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether tuning and evaluation were both killed before one chain ended, and each had something to go on from."""
        return self.in_both > 0 and all(self.resumable[stage] > 0 for stage in CHECKPOINTS)


def save_often() -> None:
    """In the child: the chain is over before the first checkpoint would be due."""
    from llmrepair.models import training

    training.CHECKPOINT_SECONDS = 0.05


def kill_once(command_lines: Sequence[list[str]], output: Path, seconds: float) -> bool:
    """Starts a chain and kills it after so many seconds; whether it had ended by then."""
    child = start(output, command_lines, save_often)
    code = child.wait(seconds)
    assert code in (0, -signal.SIGKILL), child.err
    return code == 0


def note_kill(tally: Tally, runs: Path) -> None:
    tally.kills += 1
    for stage in CHECKPOINTS:
        tally.resumable[stage] += has_checkpoint(runs, stage)


def has_checkpoint(runs: Path, stage: str) -> bool:
    patterns = (CHECKPOINTS[stage], "*/*.checkpoint")
    found = (path for pattern in patterns for path in runs.glob(f".work/{stage}-*/{pattern}"))
    return any(path.stat().st_size > 0 for path in found)


def note_chain(tally: Tally, runs: Path) -> None:
    records = {folder: json.loads((folder / "record.json").read_text()) for folder in artifact_folders(runs)}
    interrupted = [folder.parent.name for folder, record in records.items() if record["interrupted_before"]]
    tally.chains += 1
    tally.interrupted.update(interrupted)
    tally.in_both += {"tune-prompts", "evaluate"} <= set(interrupted)


def leave_draft(runs: Path, output: Path, moments: random.Random, longest: float) -> None:
    """Kills chains from the start on, until one leaves a half written artifact; nobody clears up after it."""
    while not drafts(runs):
        empty(runs)
        kill_once(chain(runs), output, moments.uniform(0, longest))


def empty(runs: Path) -> None:
    shutil.rmtree(runs)
    runs.mkdir()  # `verify` wants one, and a chain may be killed before it has made it


def drafts(runs: Path) -> list[Path]:
    return list(runs.glob("*/.draft-*"))


def finish(runs: Path, output: Path) -> None:
    child = start(output, chain(runs), save_often)
    assert child.wait() == 0, child.err


@FORKS
def test_a_killed_chain_ends_with_the_same_bytes(reference: Reference, tmp_path: Path, record_property: Record) -> None:
    runs, output, tally, moments = tmp_path / "runs", tmp_path / "output", Tally(), random.Random(SEED)
    runs.mkdir()
    started = time.monotonic()
    while tally.kills < KILLS or (tally.kills < KILLS + _MORE_KILLS and not tally.is_enough):
        if kill_once(chain(runs), output, moments.uniform(0, 1.1 * reference.seconds)):
            assert payload(runs) == reference.payload
            note_chain(tally, runs)
            empty(runs)
        else:
            note_kill(tally, runs)
            check_store(runs, tmp_path / "verify")
    print(f"\n{tally} in {time.monotonic() - started:.0f} s; in one go a chain takes {reference.seconds:.1f} s")
    assert tally.is_enough
    record_property("a small chain killed", tally.kills)


def asked(name: str, runs: Path) -> list[list[str]]:
    return [[*line, "--runs", str(runs)] for line in _LONGER_CHAINS[name]]


@FORKS
@pytest.mark.parametrize("name", _LONGER_CHAINS)
def test_a_longer_chain_killed_in_any_stage(name: str, shared_data: Path, tmp_path: Path, record_property: Record) -> None:
    started, moments = time.monotonic(), random.Random(SEED)
    child = start(tmp_path / "output", asked(name, tmp_path / "once"))
    assert child.wait(_MOST_SECONDS) == 0, child.err
    seconds = time.monotonic() - started
    runs, tally = tmp_path / "runs", Tally()
    runs.mkdir()
    while tally.kills < LONGER_KILLS or not tally.chains:
        if kill_once(asked(name, runs), tmp_path / "output", moments.uniform(0, 0.6 * seconds)):
            assert payload(runs) == payload(tmp_path / "once")
            note_chain(tally, runs)
            empty(runs)
        else:
            tally.kills += 1
            check_store(runs, tmp_path / "verify")
    print(f"\n{tally}; in one go it takes {seconds:.1f} s")
    record_property(f"a chain killed that has {stages_of(tmp_path / 'once')}", tally.kills)


def stages_of(runs: Path) -> str:
    return ", ".join(dict.fromkeys(folder.parent.name for folder in artifact_folders(runs)))


@FORKS
def test_the_next_chain_clears_up_after_a_killed_one(reference: Reference, tmp_path: Path) -> None:
    runs, output = tmp_path / "runs", tmp_path / "output"
    runs.mkdir()
    leave_draft(runs, output, random.Random(SEED), reference.seconds)
    finish(runs, output)
    assert payload(runs) == reference.payload
    assert drafts(runs) == []
    assert [*runs.glob(".work/*"), *runs.glob(".locks/*")] == []

"""Processes that ask for the same chain at once share the work: each stage is computed by one of them."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.stress.conftest import (
    STAGES,
    Child,
    Record,
    Reference,
    artifact_folders,
    chain,
    check_store,
    payload,
    start,
    wait_until,
)

pytestmark = pytest.mark.stress

PROCESSES = 16
_BEGUN = re.compile(r"^(\S+) +(?!.*: checking ).* \.\.\.$", re.MULTILINE)
_COMPUTED = re.compile(r"^(\S+) +.*: \d+\.\d s  [0-9a-f]{16}$", re.MULTILINE)
_WAITED = re.compile(r"^(\S+) +.*: waiting for process \d+ on \S+, which is computing it$", re.MULTILINE)
_CACHED = re.compile(r"^(\S+) +.*: cached  [0-9a-f]{16}$", re.MULTILINE)


def count(pattern: re.Pattern[str], children: list[Child]) -> Counter[str]:
    """Stage -> how often any of the children said so."""
    return Counter(stage for child in children for stage in pattern.findall(child.err))


def start_all(runs: Path, folder: Path) -> list[Child]:
    return [start(folder / f"output-{number}", chain(runs)) for number in range(PROCESSES)]


def check_result(runs: Path, reference: Reference, folder: Path) -> None:
    assert [path.parent.name for path in artifact_folders(runs)] == sorted(STAGES)
    assert payload(runs) == reference.payload
    check_store(runs, folder)


def test_each_stage_is_computed_once(reference: Reference, tmp_path: Path, record_property: Record) -> None:
    started = time.monotonic()
    children = start_all(tmp_path / "runs", tmp_path)
    codes = [child.wait() for child in children]
    seconds = time.monotonic() - started
    assert codes == [0] * PROCESSES, [child.err for child in children]
    once = dict.fromkeys(STAGES, 1)
    assert (count(_BEGUN, children), count(_COMPUTED, children)) == (once, once)
    waited, cached = count(_WAITED, children), count(_CACHED, children)
    assert waited["tune-prompts"] > 0, "they were to ask at once"  # the longest stage: it is told after half a second
    # What a target needs is not spoken of where it was there from the start; the target itself always is.
    assert cached["evaluate"] == cached["report"] == PROCESSES - 1
    assert all(cached[stage] >= waited[stage] for stage in STAGES)
    check_result(tmp_path / "runs", reference, tmp_path / "verify")
    print(f"\n{PROCESSES} chains side by side in {seconds:.1f} s, one alone in {reference.seconds:.1f} s; {waited} waited")
    record_property("processes that ask for one chain at once", PROCESSES)


def computing(children: list[Child], stage: str) -> list[Child]:
    """Those of the children that have begun a stage."""
    return [child for child in children if stage in _BEGUN.findall(child.err)]


@pytest.mark.parametrize("stage", ["compress", "tune-prompts"])
def test_another_goes_on_when_the_one_that_computes_is_killed(
    reference: Reference, tmp_path: Path, stage: str, record_property: Record
) -> None:
    children = start_all(tmp_path / "runs", tmp_path)
    (victim,) = wait_until(lambda: computing(children, stage))
    victim.kill()
    assert victim.wait() == -signal.SIGKILL, "it was to die before the chain ends"
    children.remove(victim)
    codes = [child.wait() for child in children]
    assert codes == [0] * (PROCESSES - 1), [child.err for child in children]
    assert count(_COMPUTED, children)[stage] == 1
    check_result(tmp_path / "runs", reference, tmp_path / "verify")
    record_property("of so many processes, the one that computes killed", 1)

"""A disk that is full stops a chain with one sentence; nothing is damaged, and with more room it goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.stress.conftest import (
    STAGES,
    Child,
    Record,
    Reference,
    chain,
    check_store,
    commands,
    payload,
    run_child,
    start,
    wait_until,
)

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may mount a file system"),
]

STEP_BYTES = 8192  # two pages: files take whole ones
ROOM_BYTES = 1 << 21
_SECONDS_TO_END = 30.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system in memory, with room for a chain."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def leave_room(disk: Path, room: int) -> None:
    """Makes the disk so large that just so many bytes, more than none, are free."""
    status = os.statvfs(disk)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    subprocess.run(["mount", "-o", f"remount,size={used + room}", str(disk)], check=True)


def free_bytes(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bfree * status.f_frsize


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        while room := free_bytes(disk):
            file.write(bytes(room))
            file.flush()
    return filler


def failed_stage(child: Child) -> str:
    """The stage of which a failed command said, in one sentence with a hint, that it was not finished, or would not fit."""
    assert "Traceback" not in child.err, child.err
    (message,) = re.findall(r"^error: (.*)$", child.err, re.MULTILINE)
    assert len(re.findall(r"^hint: .", child.err, re.MULTILINE)) == 1, child.err
    full, too_much = r"the disk is full; stage (\S+) was not finished", r"`(\S+) .*` needs about .* of disk, .* is free"
    match = re.fullmatch(f"{full}|{too_much}", message)
    assert match is not None, message
    return match[1] or match[2]


def fail(runs: Path, output: Path, command_lines: Sequence[list[str]]) -> str:
    """Runs what must fail for want of room; the stage that did."""
    child = start(output, command_lines)
    assert child.wait() in (1, 2), child.out + child.err
    stage = failed_stage(child)
    check_store(runs, output / "verify")
    return stage


def failures_until_done(disk: Path, stage: str, output: Path) -> int:
    """Gives a stage more and more room until it succeeds; how often it did not."""
    room, failures = STEP_BYTES, 0
    while True:
        leave_room(disk, room)
        child = start(output, [commands(disk / "runs")[stage]])
        if (code := child.wait()) == 0:
            return failures
        assert code in (1, 2), child.out + child.err
        assert failed_stage(child) == stage
        check_store(disk / "runs", output / "verify")
        failures, room = failures + 1, room + STEP_BYTES


def finish(runs: Path, output: Path, reference: Reference) -> None:
    child = start(output, chain(runs))
    assert child.wait() == 0, child.err
    assert payload(runs) == reference.payload


def test_each_stage_in_turn_runs_out_of_room(reference: Reference, disk: Path, tmp_path: Path, record_property: Record) -> None:
    (disk / "runs").mkdir()
    failures = Counter({stage: failures_until_done(disk, stage, tmp_path / "output") for stage in STAGES})
    print(f"\n{failures}")
    assert all(failures[stage] > 0 for stage in STAGES)
    assert payload(disk / "runs") == reference.payload
    check_store(disk / "runs", tmp_path / "verify")
    record_property("a disk with too little room for a stage", failures.total())


@pytest.mark.parametrize("done", range(len(STAGES)))
def test_a_disk_without_a_free_byte(
    reference: Reference, disk: Path, tmp_path: Path, done: int, record_property: Record
) -> None:
    runs, output = disk / "runs", tmp_path / "output"
    for stage in STAGES[:done]:
        assert start(output, [commands(runs)[stage]]).wait() == 0
    filler = fill(disk)
    assert fail(runs, output, chain(runs)) == STAGES[done]
    filler.unlink()
    finish(runs, output, reference)
    record_property("a disk without a free byte", 1)


def kill_while_it_computes(runs: Path, output: Path, stage: str) -> None:
    child = start(output, chain(runs))
    wait_until(lambda: f"{stage} " in child.err)
    child.kill()
    child.wait()
    assert list(runs.glob(f".locks/{stage}-*")), "it was to die holding its lock"


def test_a_disk_without_a_free_byte_after_a_kill(
    reference: Reference, disk: Path, tmp_path: Path, record_property: Record
) -> None:
    runs, output = disk / "runs", tmp_path / "output"
    kill_while_it_computes(runs, output, "tune-prompts")
    filler = fill(disk)
    child = start(output, chain(runs))
    assert child.wait(_SECONDS_TO_END) == 1, child.err
    assert failed_stage(child) == "tune-prompts"
    filler.unlink()
    finish(runs, output, reference)
    record_property("a disk without a free byte", 1)


def collect_garbage(runs: Path, output: Path, *options: str) -> list[str]:
    """Names of what `gc` would free, or with --yes has freed."""
    code, child = run_child(output, "gc", "--runs", runs, "--json", *options)
    assert code == 0, child.err
    return [item["name"] for item in json.loads(child.out)["items"]]


def test_gc_says_what_could_go_from_a_full_disk(
    reference: Reference, disk: Path, tmp_path: Path, record_property: Record
) -> None:
    runs, output = disk / "runs", tmp_path / "output"
    child = start(output, chain(runs))
    wait_until(lambda: list(runs.glob(".work/compress-*/*")))  # with less room from the start it would not begin
    fill(disk)
    assert child.wait(_SECONDS_TO_END) == 1, child.err
    assert failed_stage(child) == "compress"
    (name,) = collect_garbage(runs, output)
    assert name.startswith(".work/compress-")
    assert collect_garbage(runs, output, "--yes") == [name]
    assert free_bytes(disk) > 0
    record_property("a disk without a free byte", 1)


def test_gc_on_a_full_disk_after_a_kill(reference: Reference, disk: Path, tmp_path: Path, record_property: Record) -> None:
    """Whether the dead is dead cannot be told without room for a lock, so what it used may stay; no harm is done."""
    runs, output = disk / "runs", tmp_path / "output"
    kill_while_it_computes(runs, output, "tune-prompts")
    filler = fill(disk)
    collect_garbage(runs, output, "--yes")
    check_store(runs, output / "verify")
    filler.unlink()
    finish(runs, output, reference)
    record_property("a disk without a free byte", 1)

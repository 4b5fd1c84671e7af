"""A process that sleeps for longer than its lock lives stops nobody, and does not compute beside who took over."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from llmrepair.pipeline import store as store_module
from llmrepair.pipeline.errors import WorkError
from llmrepair.pipeline.store import Store
from tests.stress.conftest import Record

pytestmark = pytest.mark.stress
LEASE = 3.0
NAME = "toy/" + "a" * 16
TAKEN_OVER, WAS_NOT = 7, 8


def compute(root: Path, beats: Path) -> None:
    """Holds the lock and writes down when it computes, until it is told to end."""
    try:
        with Store(root).lock(NAME, lambda owner: None):
            while True:
                with beats.open("a") as file:
                    file.write(f"{time.time()}\n")
                time.sleep(0.02)
    except WorkError as error:
        os._exit(TAKEN_OVER if "taken over by another process" in str(error) else WAS_NOT)


@pytest.mark.parametrize("attempt", range(5))
def test_two_never_compute_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int, record_property: Record
) -> None:
    monkeypatch.setattr(store_module, "_LEASE_SECONDS", LEASE)
    context = multiprocessing.get_context("fork")
    beats = tmp_path / "beats"
    sleeper = context.Process(target=compute, args=(tmp_path, beats))
    sleeper.start()
    while not beats.exists():
        time.sleep(0.01)
    assert sleeper.pid is not None
    os.kill(sleeper.pid, signal.SIGSTOP)
    with Store(tmp_path).lock(NAME, lambda owner: None):  # goes on
        before = beats.read_text()
        os.kill(sleeper.pid, signal.SIGCONT)
        woken = time.time()
        sleeper.join(timeout=20)
        assert sleeper.exitcode == TAKEN_OVER
        late = [float(line) for line in beats.read_text().removeprefix(before).splitlines()]
        assert all(beat < woken + 2 * LEASE / store_module._BEATS + 0.5 for beat in late)
        assert (tmp_path / ".locks" / NAME.replace("/", "-")).exists()  # which is ours
    assert not (tmp_path / ".locks" / NAME.replace("/", "-")).exists()
    record_property("a process asleep for longer than its lock lives", 1)

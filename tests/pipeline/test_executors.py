"""The local executor, with workers that are a few lines of Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmrepair.pipeline.executors.base import Ended, Job
from llmrepair.pipeline.executors.local import LocalExecutor


def work(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the worker processes run."""
    print("a warning", file=sys.stderr, flush=True)
    Path(request["pid"]).write_text(str(os.getpid()))
    time.sleep(request["seconds"])
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    imported = sys.modules.get("tests.pipeline.imported")
    seen = {name: os.environ.get(name) for name in names} | {"at import": getattr(imported, "VISIBLE", None)}
    return request["code"], seen | {"much": "x" * request["characters"]}


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def job(
    tmp_path: Path, name: str, seconds: float = 0.0, code: int = 0, gpu: bool = False, memory: int = 0, characters: int = 0
) -> Job:
    request = {"seconds": seconds, "code": code, "pid": str(tmp_path / f"{name}.pid"), "characters": characters}
    return Job(name, request, tmp_path / "logs" / name, gpu, memory)


def all_ended(executor: LocalExecutor, count: int) -> dict[str, Ended]:
    ended: dict[str, Ended] = {}
    while len(ended) < count:
        ended |= {each.name: each for each in executor.wait()}
    return ended


def test_jobs_end_with_their_code_output_and_log(tmp_path: Path) -> None:
    executor = LocalExecutor(work, 2)
    executor.start(job(tmp_path, "good"))
    executor.start(job(tmp_path, "bad", code=3))
    assert not executor.has_room(job(tmp_path, "third"))
    ended = all_ended(executor, 2)
    assert {name: each.code for name, each in ended.items()} == {"good": 0, "bad": 3}
    assert "OMP_NUM_THREADS" in ended["good"].output
    assert (tmp_path / "logs" / "good").read_text() == "a warning\n"
    assert executor.has_room(job(tmp_path, "third"))


def test_a_long_answer_comes_through_and_a_killed_worker_has_none(tmp_path: Path) -> None:
    executor = LocalExecutor(work, 2)
    executor.start(job(tmp_path, "long", characters=3_000_000))
    executor.start(job(tmp_path, "killed", seconds=60))
    pid = tmp_path / "killed.pid"
    assert eventually(lambda: pid.exists() and pid.read_text())
    os.kill(int(pid.read_text()), signal.SIGKILL)
    ended = all_ended(executor, 2)
    assert len(ended["long"].output) > 3_000_000
    assert ended["killed"] == Ended("killed", -signal.SIGKILL, "")


def test_each_job_gets_a_gpu_of_its_own(tmp_path: Path) -> None:
    executor = LocalExecutor(work, 9, gpus=["3", "GPU-abc"])
    for name in ("a", "b"):
        assert executor.has_room(job(tmp_path, name, gpu=True))
        executor.start(job(tmp_path, name, seconds=0.5, gpu=True))
    assert not executor.has_room(job(tmp_path, "c", gpu=True))
    assert executor.has_room(job(tmp_path, "c"))
    ended = all_ended(executor, 2)
    assert '"CUDA_VISIBLE_DEVICES": "3"' in ended["a"].output
    assert '"CUDA_VISIBLE_DEVICES": "GPU-abc"' in ended["b"].output


SEEN_BY_THE_FORKING = """
import sys
from pathlib import Path
from tests.pipeline.test_executors import all_ended, job, work, LocalExecutor
executor = LocalExecutor(work, 1, preload=["tests.pipeline.imported"])
executor.start(job(Path(sys.argv[1]), "a"))
print(all_ended(executor, 1)["a"].output)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are not forked")
@pytest.mark.parametrize("visible", [None, "5"])
def test_who_forks_workers_sees_no_gpu_and_they_see_what_the_command_does(tmp_path: Path, visible: str | None) -> None:
    """Some libraries start CUDA when they are imported, which no fork survives."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", SEEN_BY_THE_FORKING, str(tmp_path)]
    answer = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert answer["CUDA_VISIBLE_DEVICES"] == visible
    assert answer["at import"] == ""


def test_no_more_run_than_fit_into_memory_but_always_one(tmp_path: Path) -> None:
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    executor = LocalExecutor(work, 9)
    assert executor.has_room(job(tmp_path, "huge", memory=2 * everything))
    executor.start(job(tmp_path, "half", seconds=0.5, memory=everything // 2))
    assert executor.has_room(job(tmp_path, "small", memory=everything // 3))
    assert not executor.has_room(job(tmp_path, "big", memory=everything))
    executor.stop()


def test_threads_are_shared_out_unless_the_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrepair.pipeline.executors.local.cores", lambda: 8)
    first = LocalExecutor(work, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    second = LocalExecutor(work, 3)
    first.start(job(tmp_path, "a"))
    second.start(job(tmp_path, "b"))
    assert '"OMP_NUM_THREADS": "5"' in all_ended(second, 1)["b"].output
    monkeypatch.delenv("OMP_NUM_THREADS")
    first.wait()
    first.start(job(tmp_path, "c"))
    assert '"OMP_NUM_THREADS": "2"' in all_ended(first, 1)["c"].output


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Any, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_stopping_and_dying_take_the_workers_along(tmp_path: Path) -> None:
    executor = LocalExecutor(work, 1)
    executor.start(job(tmp_path, "a", seconds=60))
    pid = tmp_path / "a.pid"
    assert eventually(lambda: pid.exists() and pid.read_text())
    executor.stop()
    assert not is_alive(int(pid.read_text()))

    parent = (
        "import sys, time; from pathlib import Path\n"
        "from tests.pipeline.test_executors import job, work, LocalExecutor\n"
        "executor = LocalExecutor(work, 1)\n"
        f"executor.start(job(Path({str(tmp_path)!r}), 'b', seconds=60)); time.sleep(60)"
    )
    path = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, "PYTHONPATH": path})
    pid = tmp_path / "b.pid"
    assert eventually(lambda: pid.exists() and pid.read_text())
    process.kill()
    process.wait()
    assert eventually(lambda: not is_alive(int(pid.read_text())))

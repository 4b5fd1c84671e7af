"""What the stress tests share: a small chain, command lines in forked children, checksums of what a store holds."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

Record = Callable[[str, object], None]
STAGES = ("compress", "tune-prompts", "evaluate", "report")
_COMPRESSION = ["--method", "rtn", "--bits", "3"]
_TUNING = ["--budget", "81920", "--tuning-samples", "200", "--lengths", "4,6", "--learning-rates", "0.01"]
_EVALUATION = ["--recovery", "idp", "--limit", "60", "--tasks", "lab_qa,lab_mc"]
_OUTPUT = ("out", "err")
_PAGE = """# What was tried to break it

`make stress` does this and writes this page. It takes about an hour on two cores, and wants to be root: only root may mount the
small disks that it fills. After each kill, each full disk and each crowd, what looks finished has its checksum, and the
next run ends with the same bytes as one that nothing disturbed. A spoilt file ends in a sentence and exit code 2, or is
read rightly; no traceback, nothing half written.

"""
_NOT_PAYLOAD = ("key.json", "record.json", "manifest.json", "log.txt", "report.html")
_SECONDS = re.compile(rb'"seconds": [^,}]+')


def commands(runs: Path) -> dict[str, list[str]]:
    """The command line of each of the `STAGES` of a small chain on the embedded model, inputs first."""
    store = ["--runs", str(runs)]
    return {
        "compress": ["compress", *store, *_COMPRESSION],
        "tune-prompts": ["tune-prompts", *store, *_COMPRESSION, *_TUNING],
        "evaluate": ["eval", *store, *_COMPRESSION, *_TUNING, *_EVALUATION],
        "report": ["report", *store, "--model", "lab"],
    }


def chain(runs: Path) -> list[list[str]]:
    """The command lines that make all of the `STAGES`."""
    return [commands(runs)["evaluate"], commands(runs)["report"]]


@dataclass
class Child:
    """A forked process that runs command lines; its output is in files."""

    pid: int
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 300.0) -> int:
        """The exit code; that of a killed child is the signal's number, negative. Kills it after so many seconds."""
        deadline = time.monotonic() + seconds
        while self._is_running() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()  # of no effect on a child that has ended and was not reaped
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def start(folder: Path, command_lines: Sequence[list[str]], prepare: Callable[[], None] = lambda: None) -> Child:
    """Runs command lines, up to the first that fails, in a child that has nothing left to import.

    Args:
        folder: for the output.
        prepare: called in the child before anything else.
    """
    import_what_is_heavy()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUT:  # here, so that the output of an earlier child is gone
        (folder / name).write_bytes(b"")
    pid = os.fork()
    if pid == 0:
        _run_and_exit(folder, command_lines, prepare)
    return Child(pid, folder)


def run_child(folder: Path, *command_line: object) -> tuple[int, Child]:
    """Runs one command line in a child to its end: exit code and output."""
    child = start(folder, [[str(argument) for argument in command_line]])
    return child.wait(), child


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What the condition gives as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.01)
    return result


@cache
def import_what_is_heavy() -> None:
    """Once, before the first fork. Not when this module is imported: a plain `pytest` collects it and runs none of it."""
    import llmcompressor  # noqa: F401
    import lm_eval.evaluator  # noqa: F401
    import peft  # noqa: F401
    import torch

    torch.set_num_threads(1)  # a pool of threads would not be there after a fork


def _run_and_exit(folder: Path, command_lines: Sequence[list[str]], prepare: Callable[[], None]) -> None:
    code = 1
    try:
        _redirect(folder)
        _take_own_lock()
        prepare()
        code = _first_failure(command_lines)
    except BaseException:  # nothing may come back to the test runner of which this is a copy
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _take_own_lock() -> None:
    """Of progress bars. The test runner's is shared by all that are forked from it: a child that is killed while it holds it
    leaves the others waiting forever."""
    from tqdm.std import tqdm

    tqdm.set_lock(threading.RLock())


def _redirect(folder: Path) -> None:
    """Of the file descriptors, for what libraries print; of Python's streams, which pytest has replaced."""
    for number, name in enumerate(_OUTPUT, start=1):
        with (folder / name).open("ab") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)


def _first_failure(command_lines: Sequence[list[str]]) -> int:
    """The first exit code that is not 0; 0 if all are."""
    from llmrepair.cli.main import run

    return next((code for command_line in command_lines if (code := run(command_line))), 0)


def artifact_folders(runs: Path) -> list[Path]:
    """Looked up without the product's own code, which is what is tested."""
    return sorted(path for path in runs.glob("[a-z]*/[0-9a-f]*") if path.parent.name != "named")


def payload(runs: Path) -> dict[str, str]:
    """`stage/key/path` -> sha256 of everything in finished artifacts that does not tell of the run that made it.

    A report shows how long evaluations took. Its page is drawn from what `report.json` says.
    """
    return {
        path.relative_to(runs).as_posix(): sha256(_SECONDS.sub(b"", path.read_bytes())).hexdigest()
        for folder in artifact_folders(runs)
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in _NOT_PAYLOAD
    }


def unfinished(runs: Path) -> list[str]:
    """Artifacts that are there without a file that their manifest names, or without a manifest."""
    return [f"{folder.parent.name}/{folder.name}" for folder in artifact_folders(runs) if not _has_its_files(folder)]


def _has_its_files(folder: Path) -> bool:
    if not (folder / "manifest.json").exists():
        return False
    entries = json.loads((folder / "manifest.json").read_text())["files"]
    return all((folder / e["path"]).is_file() and (folder / e["path"]).stat().st_size == e["bytes"] for e in entries)


def check_store(runs: Path, folder: Path) -> None:
    """`verify` finds no damage, and what looks finished is."""
    assert unfinished(runs) == []
    code, child = run_child(folder, "verify", "--runs", runs, "--json")
    assert code == 0, child.out + child.err
    assert json.loads(child.out)["damaged"] == {}


@dataclass
class Reference:
    """The chain in one go."""

    runs: Path
    payload: dict[str, str]
    seconds: float


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    runs, folder = tmp_path_factory.mktemp("reference"), tmp_path_factory.mktemp("output")
    import_what_is_heavy()
    started = time.monotonic()
    child = start(folder, chain(runs))
    assert child.wait() == 0, child.err
    seconds = time.monotonic() - started
    assert [path.parent.name for path in artifact_folders(runs)] == sorted(STAGES)
    return Reference(runs, payload(runs), seconds)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what was done how often, and writes it where STRESS_PAGE says."""
    times: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        times.update({what: count for what, count in report.user_properties if report.when == "call"})
    failed = [report.nodeid for report in terminalreporter.getreports("failed")]
    rows = [f"| {what} | {count:,} |" for what, count in times.items()]
    lost = "Nothing was lost." if not failed else "\n".join(["**Failed:**\n", *(f"- `{each}`" for each in failed)])
    page = "\n".join(["| what was done | times |", "|---|--:|", *rows, "", lost, ""])
    if rows:
        terminalreporter.write_line("\n" + page)
    if place := os.environ.get("STRESS_PAGE"):
        Path(place).write_text(_PAGE + page)

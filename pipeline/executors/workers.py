"""Worker processes, each of which computes one stage.

They are forked from a process that has already imported what stages need, which takes seconds, and has done nothing else:
each begins in the same clean state. Where forking is not safe, they import it all themselves.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from llmrepair.pipeline.executors.base import Ended, Job

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
"""Does what a request says; returns an exit code and JSON values. A function of a module, so that other processes find it."""


_GPUS = "CUDA_VISIBLE_DEVICES"


class Worker:
    """A process that computes one stage. It ends when this process does.

    Args:
        answer: what it runs, with the job's request.
        preload: modules to import before the first worker is forked.
        environment: variables of its own. Torch takes as many threads as OMP_NUM_THREADS says, and the GPUs that
            CUDA_VISIBLE_DEVICES names, which is this process's where none is given.
    """

    def __init__(self, answer: Answer, preload: Sequence[str], job: Job, environment: Mapping[str, str]):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        forks = sys.platform == "linux"
        context = multiprocessing.get_context("forkserver") if forks else multiprocessing.get_context("spawn")
        context.set_forkserver_preload([f"{__package__}.quiet", *preload])
        self._connection, theirs = context.Pipe()
        variables = _visible() | dict(environment)
        self._process = context.Process(target=_work, args=(answer, job.request, job.log, variables, theirs))
        self._process.start()
        theirs.close()  # so that either side sees when the other one ends
        self._name = job.name

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        if not self._connection.poll():
            return None
        try:
            output = self._connection.recv()
        except EOFError:  # it was killed
            output = ""
        self._process.join()
        assert self._process.exitcode is not None  # it was waited for
        return Ended(self._name, self._process.exitcode, output)

    def join(self, seconds: float | None = None) -> None:
        """Waits until it ends, so many seconds at most."""
        self._process.join(seconds)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _visible() -> dict[str, str]:
    return {_GPUS: os.environ[_GPUS]} if _GPUS in os.environ else {}


def _work(answer: Answer, request: dict[str, Any], log: Path, environment: Mapping[str, str], parent: Connection) -> None:
    """What runs in the worker: everything that is printed goes into the log."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    os.dup2(2, 1)
    os.environ.pop(_GPUS, None)  # the process that forks sees none
    os.environ.update(environment)
    if (torch := sys.modules.get("torch")) is not None:  # it was imported where there is one thread
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that it gives back what it holds
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    faulthandler.enable()
    code, output = answer(request)
    parent.send(json.dumps(output))
    sys.exit(code)


def _end_with_parent(parent: Connection) -> None:
    parent.poll(None)  # nothing is ever sent this way: the parent has ended
    os._exit(1)

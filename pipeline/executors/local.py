"""Stages side by side on this machine, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from llmrepair.pipeline.executors.base import Ended, Executor, Job
from llmrepair.pipeline.executors.workers import Answer, Worker

_POLL_SECONDS = 0.2
_SECONDS_TO_END = 10


class _Running(NamedTuple):
    job: Job
    worker: Worker
    gpu: str | None


class LocalExecutor(Executor):
    """At most `jobs` stages at a time, each on a GPU of its own if there are any, and no more than fit into memory.

    Args:
        answer: what a worker process runs.
        jobs: the most stages at a time.
        gpus: GPUs to use, as in CUDA_VISIBLE_DEVICES.
        preload: modules that the workers need.
    """

    def __init__(self, answer: Answer, jobs: int, gpus: Sequence[str] = (), preload: Sequence[str] = ()):
        self._answer = answer
        self._preload = preload
        self._jobs = jobs
        self._gpus = list(gpus)
        self._running: list[_Running] = []
        # Unless told otherwise, each process would start a thread per core, and together they would be many times slower.
        self._threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // jobs)))}

    def has_room(self, job: Job) -> bool:
        memory = job.memory_bytes + sum(running.job.memory_bytes for running in self._running)
        has_gpu = not (job.uses_gpu and self._gpus) or bool(self._free_gpus())
        return len(self._running) < self._jobs and has_gpu and (not self._running or memory <= _memory_bytes())

    def start(self, job: Job) -> None:
        gpu = self._free_gpus()[0] if job.uses_gpu and self._gpus else None
        environment = self._threads | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
        self._running.append(_Running(job, Worker(self._answer, self._preload, job, environment), gpu))

    def _free_gpus(self) -> list[str]:
        taken = {running.gpu for running in self._running}
        return [gpu for gpu in self._gpus if gpu not in taken]

    def wait(self) -> list[Ended]:
        time.sleep(_POLL_SECONDS)
        ended = {running.job.name: end for running in self._running if (end := running.worker.ended()) is not None}
        self._running = [running for running in self._running if running.job.name not in ended]
        return list(ended.values())

    def stop(self) -> None:
        for running in self._running:
            running.worker.terminate()
        for running in self._running:
            running.worker.join(_SECONDS_TO_END)
            running.worker.kill()
            running.worker.join()
        self._running = []


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

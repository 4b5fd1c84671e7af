"""What an executor is, and the process that it starts for each stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """A stage that a worker process is to compute."""

    name: str
    """`stage/key`."""
    request: dict[str, Any]
    """What the worker makes the stage from, as JSON values."""
    log: Path
    """Gets what the process writes on standard error."""
    uses_gpu: bool
    """Whether it takes a GPU where there is one."""
    memory_bytes: int
    """An estimate of the memory that it takes."""


@dataclass(frozen=True)
class Ended:
    """How a worker process ended; a negative exit code is the signal that killed it, as in `subprocess`."""

    name: str
    code: int
    output: str


class Executor(ABC):
    @abstractmethod
    def has_room(self, job: Job) -> bool:
        """Whether the job would start at once."""

    @abstractmethod
    def start(self, job: Job) -> None: ...

    @abstractmethod
    def wait(self) -> list[Ended]:
        """The jobs that ended; waits a moment for one."""

    @abstractmethod
    def stop(self) -> None:
        """Ends all that is running."""


def start_worker(module: str, job: Job, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process that computes one stage and prints one JSON object. It ends when its standard input does: with its parent."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(job.request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **environment},
        )

"""What an executor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

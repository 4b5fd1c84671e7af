"""The two ways in which a command can end badly; both are told in one sentence with a hint, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and what mends it. Both without a full stop."""

    message: str
    hint: str


class LlmrepairError(Exception):
    """Base of everything that is told to the user; `exit_code` is the process's."""

    exit_code = 1

    def __init__(self, *problems: Problem):
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems: Sequence[Problem] = problems


class RequestError(LlmrepairError):
    """The request was wrong: found before any work, nothing was written."""

    exit_code = 2


class WorkError(LlmrepairError):
    """The request was fine and the work failed."""

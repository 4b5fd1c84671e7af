"""The two ways in which a command can end badly; both are told in one sentence with a hint, never a traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended, as shells have it."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and what mends it. Both without a full stop."""

    message: str
    hint: str
    option: str | None = None
    """The config field that is wrong, where it is one; tells a plan which line to blame."""

    def as_json(self) -> dict[str, Any]:
        return {"message": self.message, "hint": self.hint}


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


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_IN_WORDS = re.compile(rf"os error ({'|'.join(map(str, _FULL))})\b")


def says_disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is a full disk or quota; safetensors only says so in words."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL) or _FULL_IN_WORDS.search(str(each)) is not None
        for each in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, without importing it


def disk_is_full(what: str) -> Problem:
    return Problem(
        f"the disk is full; {what} was not finished",
        "make room (`llmrepair gc` says what could go), or choose another folder with --runs DIR, and run the command again",
    )

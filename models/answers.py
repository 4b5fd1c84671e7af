"""Answers of a model, kept in a file as they come, so that a long evaluation goes on where it was cut off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Question = Sequence[Any]
"""What decides an answer, as JSON values."""


class AnswerFile:
    """One line of JSON per batch. What was being written when the process died is no whole line, and is dropped.

    Questions go by their names (see `question_name`).

    Args:
        path: None keeps nothing.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.exists():
            whole = _whole_lines(path.read_bytes())
            with path.open("r+b") as file:
                file.truncate(sum(map(len, whole)))
            for line in whole:
                self._known |= json.loads(line)

    def known(self, names: Sequence[str]) -> list[Any] | None:
        """The answers to a batch of questions; None unless all are known."""
        return [self._known[name] for name in names] if all(name in self._known for name in names) else None

    def keep(self, names: Sequence[str], answers: Sequence[Any]) -> None:
        self._write(dict(zip(names, answers, strict=True)))

    def was_too_large(self, names: Sequence[str]) -> bool:
        """Whether a batch was found not to fit in memory."""
        return question_name(names) in self._known

    def keep_too_large(self, names: Sequence[str]) -> None:
        """Whoever goes on does not try this batch: what fits may have changed, and answers depend on their batch."""
        self._write({question_name(names): None})

    def _write(self, answers: dict[str, Any]) -> None:
        self._known |= answers
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(answers) + "\n")


def question_name(question: Question) -> str:
    """Under which name its answer is kept."""
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()[:32]


def _whole_lines(content: bytes) -> list[bytes]:
    """The lines up to the first that is not whole: after a loss of power its bytes may be there and be zeros."""
    whole = []
    for line in content.splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        whole.append(line)
    return whole

"""Printing: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.errors import Problem

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_problems(problems: Sequence[Problem], as_json: bool) -> None:
    for problem in problems:
        print(f"error: {problem.message}\n\nhint: {problem.hint}", file=sys.stderr)
    if as_json:
        print_json({"errors": [vars(problem) for problem in problems]})


def console() -> Console:
    """Where tables go. Not cut to a width that nobody looks at where output is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)

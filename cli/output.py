"""Printing: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
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
        print_json({"errors": [problem.as_json() for problem in problems]})


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Columns of plain text, those of `right` aligned to the right: quick for ten thousand rows, and made for grep."""
    columns = (
        [[head, *cells] for head, cells in zip(heads, zip(*rows, strict=True), strict=True)] if rows else [[h] for h in heads]
    )
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        cells = [cell.rjust(w) if head in right else cell.ljust(w) for head, cell, w in zip(heads, line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def console() -> Console:
    """Where tables go. Where output is no terminal, tables are as wide as COLUMNS says, and sentences stay in one piece."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    columns = os.environ.get("COLUMNS", "")
    return Console(highlight=False, soft_wrap=True, width=int(columns) if columns.isdigit() and int(columns) else 160)


def flat(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested metrics as lines: `tasks.lab_qa.exact_match` and its score."""
    lines: list[tuple[str, str]] = []
    for name, value in metrics.items():
        if isinstance(value, Mapping) and "low" in value:
            items = f"  n {value['n']}" if "n" in value else ""
            lines.append((f"{prefix}{name}", f"{_number(value['value'], 'none')}{_interval(value)}{items}"))
        elif isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append((f"{prefix}{name}", f"{len(value)} entries, see --json"))
        elif value is not None:
            lines.append((f"{prefix}{name}", f"{value:.6g}" if isinstance(value, float) else str(value)))
    return lines


def _interval(estimate: Mapping[str, Any]) -> str:
    """One that is open at an end goes on without bound there; a dash where there is none."""
    low, high = estimate["low"], estimate.get("high")
    return " [-]" if low is None and high is None else f" [{_number(low, '-inf')}, {_number(high, 'inf')}]"


def _number(value: float | None, without: str) -> str:
    return without if value is None else f"{value:.4f}"

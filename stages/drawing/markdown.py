"""Markdown for model cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: int | None = None) -> str:
    """A table; columns from `right` on are aligned to the right."""
    rules = ["--:" if right is not None and number >= right else "---" for number in range(len(heads))]
    lines = [heads, rules, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""Markdown for model cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


def plain(text: str) -> str:
    """A text as it reads, whatever of Markdown and HTML is in it."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", escape(" ".join(text.split()), quote=False))


def code(text: str) -> str:
    """A text between as many backticks as end it nowhere inside."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    padding = " " if longest else ""
    return f"{'`' * (longest + 1)}{padding}{' '.join(text.split())}{padding}{'`' * (longest + 1)}"


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: int | None = None) -> str:
    """A table; columns from `right` on are aligned to the right."""
    rules = ["--:" if right is not None and number >= right else "---" for number in range(len(heads))]
    lines = [heads, rules, *([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""What README.md and docs/ hold: shell commands in their order, plans, and code in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line of a shell, lines that are continued as one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _FENCE.findall(page.read_text())]


def inline_code(page: Path) -> Iterator[str]:
    """Code in sentences and tables."""
    for found in _INLINE.findall(_FENCE.sub("", page.read_text())):
        yield " ".join(found.split())

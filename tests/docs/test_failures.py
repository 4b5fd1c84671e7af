"""What docs/failures.md quotes is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

CODE = ("cli", "models", "pipeline", "stages")
OF_TYPER = ("No such option",)
_VARIABLE = re.compile(r"`[^`]*`|\.\.\.\w*|\b\d+(?::\d+)?\b")
"""What differs from one error to the next: names and numbers."""


def quoted() -> list[str]:
    rows = [line.split("|")[1].strip() for line in (ROOT / "docs" / "failures.md").read_text().splitlines() if line[:1] == "|"]
    return [row for row in rows if row.strip("-") and row != "the error says" and row not in OF_TYPER]


@pytest.fixture(scope="module")
def code() -> str:
    """All code, strings that are continued on another line as one."""
    texts = [path.read_text() for folder in CODE for path in sorted(Path(ROOT / folder).rglob("*.py"))]
    return re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"', "", "\n".join(texts)))


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_error_is_in_the_code(code: str, message: str) -> None:
    parts = [part.strip(" .:") for part in _VARIABLE.split(message)]
    assert [part for part in parts if part and part not in code] == []

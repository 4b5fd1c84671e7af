"""`benchmarks/families.py`: what becomes of every causal family, and that its page says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.families import _asked, _page
from tests.tiny_families import ASKED, TYPES, Outcome, outcome, tiny_folder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
A_FEW = [
    ("deepseek_v3", "gptq", "works"),
    ("falcon_h1", "prompt", "refused"),
    ("gpt_oss", "gptq", "works"),
    ("granitemoe", "rtn", "refused"),
    ("lfm2", "gptq", "works"),
    ("llama4_text", "lora", "works"),
    ("mamba", "lora", "works"),
    ("mixtral", "prompt", "works"),
    ("qwen2_moe", "lora", "works"),
    ("qwen3_moe", "rtn", "works"),
    ("stablelm", "idp", "refused"),
    ("trocr", "rtn", "works"),
    ("xlnet", "lora", "refused"),
    ("xmod", "lora", "refused"),
]


def rows() -> dict[str, list[str]]:
    """Family -> how each of `ASKED` ended, as the page says."""
    lines = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE.read_text(), re.M)
    return {family: cells.split(" | ") for family, cells in lines}


@pytest.mark.parametrize(("family", "asked", "state"), A_FEW)
def test_how_it_ends(tmp_path: Path, family: str, asked: str, state: str) -> None:
    ended = outcome(tiny_folder(tmp_path / "model", family), tmp_path / "runs", asked)
    assert ended.state == state, ended.said
    assert rows()[family][list(ASKED).index(asked)].isdecimal() == (state == "refused")


@pytest.mark.stress
@pytest.mark.parametrize("family", TYPES)
def test_the_page_says_how_it_ends(family: str) -> None:
    found = _asked(family)
    if isinstance(found, str):
        assert family not in rows()
        return
    states = {"works": "works", "**fails**": "BUG"}
    assert {name: each.state for name, each in found.items()} == {
        name: states.get(cell, "refused") for name, cell in zip(ASKED, rows()[family], strict=True)
    }


def test_one_reason_has_one_number() -> None:
    said = [f"the dense format cannot hold the experts of `/tmp/{name}/model` ({name}Experts)" for name in ("A", "B")]
    page = _page({name: {"rtn": Outcome("refused", each)} for name, each in zip("ab", said, strict=True)})
    assert "| `a` | 1 |" in page
    assert "| `b` | 1 |" in page
    assert "1. the dense format cannot hold the experts of the model\n" in page

"""What is printed, where output is no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmrepair.cli.output import console, flat
from llmrepair.pipeline.graph import Graph, labels_of
from llmrepair.pipeline.keys import DigestCache
from llmrepair.stages.plan import read_plan


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((0.1, 0.3), "0.2000 [0.1000, 0.3000]"),
        ((None, 0.3), "0.2000 [-inf, 0.3000]"),
        ((0.1, None), "0.2000 [0.1000, inf]"),
        ((None, None), "0.2000 [-]"),
    ],
)
def test_an_interval_may_be_open_at_an_end(ends: tuple[float | None, float | None], text: str) -> None:
    assert flat({"share": {"value": 0.2, "low": ends[0], "high": ends[1]}}) == [("share", text)]
    assert flat({"share": {"value": None, "low": 0.1, "high": 0.3}}) == [("share", "none [0.1000, 0.3000]")]


@pytest.mark.parametrize(("columns", "width"), [("90", 90), ("", 160), ("0", 160), ("wide", 160)])
def test_piped_output_is_as_wide_as_columns_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = console()
    assert out.width == width
    sentence = " ".join(["a sentence of many words"] * 20)
    out.print(sentence, markup=False)
    assert capsys.readouterr().out == f"{sentence}\n"


PLAN = """
[defaults]
tasks = ["lab_qa"]
[grid]
compressions = [{ method = "rtn", bits = 3 }]
recoveries = [{ recovery = "lora" }]
seeds = [0, 1]
"""


def test_a_plan_may_have_a_space_in_its_name_and_its_seeds_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "my first plan (2).toml"
    path.write_text(PLAN)
    plan = read_plan(path)
    assert plan.name == "my-first-plan-2"
    labels = labels_of(Graph(plan.targets, DigestCache(tmp_path / "digests")))
    assert len(set(labels.values())) == len(labels)
    tuned: list[Any] = [label for name, label in labels.items() if name.startswith("tune-lora/")]
    assert sorted(label.rpartition(", ")[2] for label in tuned) == ["seed 0", "seed 1"]

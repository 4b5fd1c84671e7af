"""A model that does not compute trees of texts right is told: its evaluation takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import CommandLine


@pytest.mark.parametrize("takes_trees", [True, False])
def test_texts_that_are_computed_one_by_one_are_told(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_trees: bool
) -> None:
    monkeypatch.setattr("llmrepair.models.scorer.takes_trees", lambda model: takes_trees)
    answer = llmrepair("eval", "--method", "none", "--tasks", "lab_qa", "--limit", 4, "--runs", tmp_path)
    assert answer.code == 0, answer.err
    assert ("note: texts that begin alike are computed one by one" in answer.err) == (not takes_trees)

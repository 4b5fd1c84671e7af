from __future__ import annotations

import pytest
import torch

from llmrepair.stages.repairs.pool.diversity import diversity, diversity_text


def test_shares_and_gap_of_a_small_pool() -> None:
    losses = torch.tensor([[1.0, 3.0, 2.0, 2.0], [2.0, 1.0, 2.0, 4.0], [5.0, 5.0, 5.0, 5.0]])
    measured = diversity(losses)
    assert measured["best_shares"] == [0.75, 0.25, 0.0]
    assert measured["oracle_gap"] == pytest.approx(2.0 - 1.5)
    assert "75, 25, 0 %" in diversity_text(measured, 2.0)
    assert "2.000, by 0.500" in diversity_text(measured, 2.0)


def test_prompts_that_do_not_differ_have_no_gap() -> None:
    losses = torch.rand(1, 50).expand(3, -1)
    assert diversity(losses) == {"best_shares": [1.0, 0.0, 0.0], "oracle_gap": 0.0}

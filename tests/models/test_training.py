from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.models import training
from llmrepair.models.training import Recipe, distillation_loss, mean_loss, next_token_loss, rows_of_step, sweep, train

ROWS = (torch.arange(40)[:, None] + torch.arange(5)) % 10  # each token is followed by the next


def table_loss(table: torch.nn.Parameter) -> training.LossSum:
    """A bigram model: the simplest thing that has a next-token loss."""
    return lambda rows: next_token_loss(table[rows], rows)


def fresh() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(10, 10))


class Killed(Exception):
    """Stands for the power going off."""


def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    recipe = Recipe(steps=30, learning_rate=0.1, examples_per_step=7, seed=3)
    whole = fresh()
    train([whole], table_loss(whole), ROWS, recipe, 4, tmp_path / "whole", lambda steps, loss: None)

    steps_left = 11

    def die(steps: int, loss: float | None) -> None:
        nonlocal steps_left
        steps_left -= steps
        if steps_left == 0:
            raise Killed

    broken = fresh()
    with pytest.raises(Killed):
        train([broken], table_loss(broken), ROWS, recipe, 4, tmp_path / "broken", die)
    resumed, seen = fresh(), []
    train([resumed], table_loss(resumed), ROWS, recipe, 4, tmp_path / "broken", lambda *step: seen.append(step))
    assert seen[0] == (10, None)
    assert [steps for steps, _ in seen[1:]] == [1] * (30 - 10)
    assert torch.equal(resumed, whole)
    assert list(tmp_path.iterdir()) == []


def test_a_smaller_micro_batch_is_the_same_step(tmp_path: Path) -> None:
    recipe = Recipe(steps=20, learning_rate=0.1, examples_per_step=8, seed=0)
    tables = [fresh(), fresh()]
    for table, micro_batch in zip(tables, (8, 3), strict=True):
        train([table], table_loss(table), ROWS, recipe, micro_batch, tmp_path / "state", lambda steps, loss: None)
    torch.testing.assert_close(*tables)


def test_training_learns(tmp_path: Path) -> None:
    table = fresh()
    before = mean_loss(table_loss(table), ROWS, 8)
    train([table], table_loss(table), ROWS, Recipe(200, 0.1, 8, 0), 8, tmp_path / "state", lambda steps, loss: None)
    assert mean_loss(table_loss(table), ROWS, 8) < before - 0.3


def test_a_sweep_keeps_the_best_and_does_not_repeat_what_is_done(tmp_path: Path) -> None:
    table = fresh()
    recipes = [Recipe(40, rate, 8, 0) for rate in (1e-6, 0.1, 1e-5)]
    trials = sweep([table], table_loss(table), ROWS[:30], ROWS[30:], recipes, 8, tmp_path, lambda steps, loss: None)
    losses = [trial.validation_loss for trial in trials]
    assert min(losses) == losses[1]
    assert mean_loss(table_loss(table), ROWS[30:], 8) == pytest.approx(losses[1], abs=1e-6)

    again = fresh()
    told: list[tuple[int, float | None]] = []
    assert sweep([again], table_loss(again), ROWS[:30], ROWS[30:], recipes, 8, tmp_path, lambda *s: told.append(s)) == trials
    assert told == [(40, None)] * 3
    assert torch.equal(again, table)


@given(rows=st.integers(1, 30), examples=st.integers(1, 12), seed=st.integers(0, 5))
def test_an_epoch_sees_each_row_once(rows: int, examples: int, seed: int) -> None:
    steps = torch.cat([rows_of_step(rows, examples, seed, step) for step in range(2 * rows)])
    assert sorted(steps[:rows].tolist()) == list(range(rows))
    assert sorted(steps[rows : 2 * rows].tolist()) == list(range(rows))


def test_distillation_is_zero_for_the_teacher_and_kl_for_others() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 6, generator=generator) for _ in range(2))
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0.0, abs=1e-5)
    p, q = teacher[:, :-1].softmax(-1).double(), student[:, :-1].softmax(-1).double()
    assert distillation_loss(student, teacher).item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-4)


def test_a_trial_that_diverged_is_never_the_best(tmp_path: Path) -> None:
    table = fresh()
    recipes = [Recipe(3, rate, 8, 0) for rate in (float("inf"), 0.1)]
    trials = sweep([table], table_loss(table), ROWS[:30], ROWS[30:], recipes, 8, tmp_path, lambda steps, loss: None)
    assert trials[0].as_json()["validation_loss"] is None
    assert training.best_trial(trials) is trials[1]
    assert table.isfinite().all()

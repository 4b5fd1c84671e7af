from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.models import training
from llmrepair.models.memory import DoesNotFit
from llmrepair.models.training import (
    Recipe,
    distillation_loss,
    learning_rate,
    mean_loss,
    next_token_loss,
    row_losses,
    rows_of_step,
    sweep,
    train,
)
from tests.models.waits import Waits

ROWS = (torch.arange(40)[:, None] + torch.arange(5)) % 10  # each token is followed by the next


TRAINING, VALIDATION = ROWS[:30], ROWS[30:]


def table_loss(table: torch.nn.Parameter) -> training.LossSum:
    """A bigram model: the simplest thing that has a next-token loss."""
    return lambda rows: next_token_loss(table[rows[:, :-1]], rows)


def fresh() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(10, 10))


def quiet(steps: int, loss: float | None) -> None:
    pass


class Killed(Exception):
    """Stands for the power going off."""


def killed_after(calls: int) -> training.OnSteps:
    left = iter(range(calls))

    def die(steps: int, loss: float | None) -> None:
        if next(left, None) is None:
            raise Killed

    return die


WRONG = (VALIDATION * 3 + 1) % 10
"""Held-out rows that get worse with every step, from the first look on."""


@pytest.mark.parametrize("held_out, done", [(VALIDATION, 30), (WRONG, 12)], ids=["to the end", "stopped early"])
@pytest.mark.parametrize("kill_after", [1, 4, 11, 12])
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: torch.Tensor, done: int, kill_after: int
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    recipe = Recipe(steps=30, learning_rate=0.1, examples_per_step=14, seed=3)
    whole = fresh()
    without_gradient = torch.nn.Parameter(torch.ones(2))
    parameters = [whole, without_gradient]
    expected = train(parameters, table_loss(whole), TRAINING, held_out, recipe, 4, tmp_path / "whole", quiet)
    assert expected[0] == done

    broken = fresh()
    with pytest.raises(Killed):
        parameters = [broken, without_gradient]
        train(parameters, table_loss(broken), TRAINING, held_out, recipe, 4, tmp_path / "broken", killed_after(kill_after))
    resumed, seen = fresh(), []
    loss = table_loss(resumed)
    parameters = [resumed, without_gradient]
    again = train(parameters, loss, TRAINING, held_out, recipe, 4, tmp_path / "broken", lambda *step: seen.append(step))
    assert seen[0] == (kill_after - 1, None)
    assert sum(steps for steps, _ in seen) == 30
    assert again == expected
    assert torch.equal(resumed, whole)


def test_training_stops_three_looks_after_its_best_and_keeps_that(tmp_path: Path) -> None:
    recipe = Recipe(steps=100, learning_rate=0.03, examples_per_step=8, seed=0)
    mixture = torch.cat([VALIDATION, WRONG])  # better at first, then overfitted
    table = fresh()
    steps, looks = train([table], table_loss(table), TRAINING, mixture, recipe, 8, tmp_path / "state", quiet)
    best = looks.index(min(looks))
    assert best > 0
    assert len(looks) == best + 1 + training.PATIENCE < training.LOOKS
    assert steps == 10 * len(looks)
    assert mean_loss(table_loss(table), mixture, 8) == pytest.approx(min(looks), abs=1e-6)


@given(steps=st.integers(1, 1000), examples=st.integers(1, 40), held_out=st.integers(1, 200))
def test_looks_are_evenly_apart_and_the_last_is_at_the_end(steps: int, examples: int, held_out: int) -> None:
    looks, rows = training.looks_of(Recipe(steps, 0.1, examples, 0), held_out)
    assert max(looks) == steps
    assert 1 <= len(looks) <= min(steps, training.LOOKS)
    assert 1 <= rows <= held_out
    apart = [after - before for before, after in pairwise([0, *sorted(looks)])]
    assert max(apart) - min(apart) <= 1


@given(steps=st.integers(1, 1000), examples=st.integers(1, 40), held_out=st.integers(1, 200))
def test_looks_read_at_most_a_quarter_of_what_steps_read(steps: int, examples: int, held_out: int) -> None:
    looks, rows = training.looks_of(Recipe(steps, 0.1, examples, 0), held_out)
    assert len(looks) * rows <= max(1, steps * examples / 4)
    assert rows >= min(training.LOOK_ROWS, held_out) or len(looks) == 1


def test_looks_are_ten_at_all_rows_where_steps_read_enough() -> None:
    assert training.looks_of(Recipe(200, 0.1, 16, 0), 80) == ({20 * look for look in range(1, 11)}, 80)


def test_the_learning_rate_rises_falls_and_is_never_zero() -> None:
    rates = [learning_rate(Recipe(20, 1.0, 16, 0), step) for step in range(20)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx((1 + math.cos(math.pi * 18 / 19)) / 2)
    assert [learning_rate(Recipe(2, 1.0, 16, 0), step) for step in range(2)] == pytest.approx([1.0, 0.5])


def test_the_last_of_two_steps_changes_something(tmp_path: Path) -> None:
    tables = [fresh(), fresh()]
    for table, steps in zip(tables, (1, 2), strict=True):
        recipe = Recipe(steps, 0.1, 8, 0)
        train([table], table_loss(table), TRAINING, VALIDATION, recipe, 8, tmp_path / str(steps), quiet)
    assert not torch.equal(*tables)


def test_a_smaller_micro_batch_is_the_same_step(tmp_path: Path) -> None:
    recipe = Recipe(steps=20, learning_rate=0.1, examples_per_step=8, seed=0)
    tables = [fresh(), fresh()]
    for table, micro_batch in zip(tables, (8, 3), strict=True):
        train([table], table_loss(table), TRAINING, VALIDATION, recipe, micro_batch, tmp_path / f"state-{micro_batch}", quiet)
    torch.testing.assert_close(*tables)


def little_memory(table: torch.nn.Parameter, most: int, seen: list[int]) -> training.LossSum:
    """A loss of `most` rows at once; it runs out of memory on its way back, when gradients of other rows are there."""

    def loss_sum(rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        loss = table_loss(table)(rows)
        if len(rows) > most:
            if loss.requires_grad:
                loss.backward()
            raise torch.OutOfMemoryError
        return loss

    return loss_sum


def test_a_step_that_does_not_fit_in_memory_is_done_again_in_halves(tmp_path: Path) -> None:
    recipe, seen = Recipe(steps=20, learning_rate=0.1, examples_per_step=8, seed=0), list[int]()
    table, other = fresh(), fresh()
    train([table], table_loss(table), TRAINING, VALIDATION, recipe, 2, tmp_path / "expected", quiet)
    _, looks = train([other], little_memory(other, 2, seen), TRAINING, VALIDATION, recipe, 32, tmp_path / "state", quiet)
    assert torch.equal(table, other)
    assert seen[:6] == [8, 4, 2, 2, 2, 2]
    assert max(seen[2:]) == 2  # it is known from then on
    assert mean_loss(little_memory(other, 2, []), VALIDATION, 8) == pytest.approx(min(looks))


def test_one_row_that_does_not_fit_in_memory_is_told(tmp_path: Path) -> None:
    table, recipe = fresh(), Recipe(steps=20, learning_rate=0.1, examples_per_step=8, seed=0)
    with pytest.raises(DoesNotFit, match="5 tokens"):
        train([table], little_memory(table, 0, []), TRAINING, VALIDATION, recipe, 8, tmp_path / "state", quiet)


def test_a_gpu_is_waited_for_once_a_step_however_many_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_loss_of_targets", training._loss_below_greatest)  # as on a GPU
    counts = []
    for micro_batch in (8, 1):
        table = fresh()
        with Waits() as waits:
            path = tmp_path / f"state-{micro_batch}"
            train([table], table_loss(table), TRAINING, VALIDATION, Recipe(20, 0.1, 8, 0), micro_batch, path, quiet)
        counts.append(waits.number)
    assert counts[0] == counts[1]


def test_training_learns(tmp_path: Path) -> None:
    table = fresh()
    before = mean_loss(table_loss(table), ROWS, 8)
    train([table], table_loss(table), TRAINING, VALIDATION, Recipe(200, 0.1, 8, 0), 8, tmp_path / "state", quiet)
    assert mean_loss(table_loss(table), ROWS, 8) < before - 0.3


def test_of_no_steps_the_start_is_looked_at_and_stays(tmp_path: Path) -> None:
    table = fresh()
    steps, looks = train([table], table_loss(table), TRAINING, VALIDATION, Recipe(0, 0.1, 8, 0), 8, tmp_path / "state", quiet)
    assert (steps, looks) == (0, [mean_loss(table_loss(fresh()), VALIDATION, 8)])
    assert torch.equal(table, fresh())


def test_a_sweep_keeps_the_best_and_does_not_repeat_what_is_done(tmp_path: Path) -> None:
    table = fresh()
    recipes = [Recipe(40, rate, 8, 0) for rate in (1e-6, 0.1)]
    starts = {"bad": [torch.randn(10, 10, generator=torch.manual_seed(0))], "good": [torch.zeros(10, 10)]}
    trials = sweep([table], starts, table_loss(table), TRAINING, VALIDATION, recipes, 8, tmp_path, quiet)
    assert [(trial.initialisation, trial.learning_rate) for trial in trials] == [
        *(("bad", 1e-6), ("bad", 0.1), ("good", 1e-6), ("good", 0.1))
    ]
    losses = [trial.validation_loss for trial in trials]
    assert min(losses) == losses[3]
    assert mean_loss(table_loss(table), VALIDATION, 8) == pytest.approx(losses[3], abs=1e-6)

    again = fresh()
    told: list[tuple[int, float | None]] = []
    assert (
        sweep([again], starts, table_loss(again), TRAINING, VALIDATION, recipes, 8, tmp_path, lambda *s: told.append(s))
        == trials
    )
    assert told == [(40, None)] * 4
    assert torch.equal(again, table)


@given(rows=st.integers(1, 30), examples=st.integers(1, 12), seed=st.integers(0, 5))
def test_an_epoch_sees_each_row_once(rows: int, examples: int, seed: int) -> None:
    steps = torch.cat([rows_of_step(rows, examples, seed, step) for step in range(2 * rows)])
    assert sorted(steps[:rows].tolist()) == list(range(rows))
    assert sorted(steps[rows : 2 * rows].tolist()) == list(range(rows))


def test_every_epoch_has_an_order_of_its_own() -> None:
    epochs = torch.cat([rows_of_step(16, 4, 0, step) for step in range(3 * 4)]).reshape(3, 16).tolist()
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_distillation_is_zero_for_the_teacher_and_kl_for_others() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 6, generator=generator) for _ in range(2))
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0.0, abs=1e-5)
    p, q = teacher.softmax(-1).double(), student.softmax(-1).double()
    assert distillation_loss(student, teacher).item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-4)


def test_losses_of_rows_are_those_that_training_adds_up() -> None:
    logits, rows = torch.randn(3, 4, 10, generator=torch.manual_seed(0)), ROWS[:3]
    of_rows = row_losses(logits, rows)
    assert of_rows.sum().item() * 4 == pytest.approx(next_token_loss(logits, rows).item(), rel=1e-5)
    assert of_rows[1].item() * 4 == pytest.approx(next_token_loss(logits[1:2], rows[1:2]).item(), rel=1e-5)


def test_a_trial_that_diverged_is_never_the_best(tmp_path: Path) -> None:
    table = fresh()
    starts = {"zero": [torch.zeros(10, 10)]}
    recipes = [Recipe(40, rate, 8, 0) for rate in (float("inf"), 0.1)]
    trials = sweep([table], starts, table_loss(table), TRAINING, VALIDATION, recipes, 8, tmp_path, quiet)
    assert trials[0].as_json()["validation_loss"] is None
    assert trials[0].as_json()["looks"] == [None] * 4
    assert trials[0].steps == 20
    assert training.best_trial(trials) is trials[1]
    assert table.isfinite().all()


@given(st.integers(0, 2**16), st.sampled_from([0.1, 1.0, 50.0, 1000.0]))
def test_the_next_token_loss_and_its_gradient_are_those_of_cross_entropy(seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (spread * torch.randn(2, 4, 11, generator=generator)).requires_grad_()
    rows = torch.randint(11, (2, 5), generator=generator)
    loss = next_token_loss(logits, rows)
    (gradient,) = torch.autograd.grad(3 * loss, logits)
    flat = logits.detach().flatten(0, 1)
    on_gpu = training._loss_below_greatest(flat, flat.softmax(-1), rows[:, 1:].flatten())
    exact = logits.detach().double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
    (expected_gradient,) = torch.autograd.grad(3 * expected, exact)
    assert [loss.item(), on_gpu.item()] == pytest.approx([expected.item()] * 2, rel=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-5)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llmrepair.models import gradients
from llmrepair.models.gradients import Gradients
from llmrepair.models.training import LossSum, Recipe, train
from tests.models.test_training import TRAINING, VALIDATION, fresh, quiet, table_loss

Work = Callable[[], torch.Tensor]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What was recorded; it is computed by what was recorded, as on a GPU."""
    works: list[Work] = []

    def record(work: Work) -> Work:
        works.append(work)
        return work

    monkeypatch.setattr(gradients, "recorded", record)
    return works


def added(loss_sum: LossSum, table: torch.nn.Parameter, calls: int) -> tuple[list[float], torch.Tensor]:
    """Losses of rows, two after each other, and the last gradients."""
    found = Gradients(loss_sum, [table], records=True)
    losses = []
    for _ in range(calls):
        found.clear()
        losses += [float(found.add(rows, 10)) for rows in (TRAINING[:2], TRAINING[2:4])]
    assert table.grad is not None
    return losses, table.grad


@pytest.mark.parametrize("micro_batch", [8, 4, 3])
def test_recorded_steps_are_those_computed_one_by_one(
    micro_batch: int, tmp_path: Path, recorded: list[Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [fresh(), fresh()]
    recipe = Recipe(steps=20, learning_rate=0.1, examples_per_step=8, seed=0)
    for records, table in zip((True, False), tables, strict=True):
        monkeypatch.setattr("llmrepair.models.training.Gradients", lambda *a, records, r=records: Gradients(*a, records=r))
        path = tmp_path / f"state-{records}"
        train([table], table_loss(table), TRAINING, VALIDATION, recipe, micro_batch, path, quiet)
    assert torch.equal(*tables)
    assert len(recorded) == 1


def test_what_is_computed_from_numbers_of_the_cpu_is_not_recorded(recorded: list[Work]) -> None:
    table = fresh()

    def loss_sum(rows: torch.Tensor) -> torch.Tensor:
        torch.tensor([1]).to("meta")  # the only device beside it that is always there
        return table_loss(table)(rows)

    added(loss_sum, table, 3)
    assert not recorded


@pytest.mark.parametrize("fails", [True, False])
def test_what_cannot_be_recorded_rightly_is_computed(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(work: Work) -> Work:
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda: 2 * work()

    expected = added(table_loss(first := fresh()), first, 1)
    monkeypatch.setattr(gradients, "recorded", record)
    losses, gradient = added(table_loss(second := fresh()), second, 3)
    assert losses == 3 * expected[0]
    assert torch.equal(gradient, expected[1])

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmrepair.stages.compress.masks import Pattern
from llmrepair.stages.compress.methods import wanda
from llmrepair.stages.compress.methods.magnitude import MAGNITUDE
from llmrepair.stages.compress.methods.sparsegpt import SPARSEGPT
from llmrepair.stages.compress.methods.wanda import WANDA
from tests.stages.compress import reference

PATTERNS = [Pattern(0.0, None), Pattern(0.3, None), Pattern(0.5, None), Pattern(0.95, None), Pattern(0.5, 4), Pattern(0.5, 8)]
each_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=str)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


few_values = st.floats(0, 4, width=16).map(round)  # so that many are equal
scores = st.tuples(st.integers(1, 6), st.integers(1, 5).map(lambda blocks: 8 * blocks)).flatmap(
    lambda shape: st.one_of(
        arrays.arrays(np.float32, shape, elements=few_values),
        arrays.arrays(np.float32, shape, elements=st.floats(0, 1e6, width=32)),
    )
)


@given(scores, st.sampled_from([None, 4, 8]), st.floats(0, 1))
def test_exactly_the_lowest_go(scores: np.ndarray, block: int | None, sparsity: float) -> None:
    kept = Pattern(sparsity, block).keep(torch.tensor(scores)).numpy()
    assert kept.shape == scores.shape
    among = (-1, block or scores.size)
    for values, keep in zip(scores.reshape(among), kept.reshape(among), strict=True):
        assert (~keep).sum() == round(sparsity * len(values))
        assert values[~keep].max(initial=-np.inf) <= values[keep].min(initial=np.inf)


@each_pattern
def test_magnitude(pattern: Pattern) -> None:
    weight = random(24, 64)
    expected = reference.magnitude(weight.double().numpy(), pattern.sparsity, pattern.block)
    np.testing.assert_array_equal(MAGNITUDE.mask(weight, torch.empty(0), pattern).numpy(), expected)


@each_pattern
def test_wanda(pattern: Pattern) -> None:
    weight, inputs = random(24, 64), random(300, 64) * torch.linspace(0.1, 5, 64)
    expected = reference.wanda(weight.double().numpy(), inputs.double().numpy(), pattern.sparsity, pattern.block)
    mask = WANDA.mask(weight, inputs.T @ inputs, pattern).numpy()
    np.testing.assert_array_equal(mask, expected)
    if not pattern.block:
        assert (mask.sum(1) == 64 - round(pattern.sparsity * 64)).all()  # each row alike


def test_wanda_takes_rows_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, hessian = random(24, 64), torch.eye(64)
    whole = WANDA.mask(weight, hessian, Pattern(0.5, None))
    monkeypatch.setattr(wanda, "_SORTED_AT_ONCE", 5 * 64)
    assert torch.equal(WANDA.mask(weight, hessian, Pattern(0.5, None)), whole)


def test_wanda_sees_what_magnitude_does_not() -> None:
    weight, inputs = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.1, 0.0], [0.0, 1.0]])
    assert MAGNITUDE.mask(weight, torch.empty(0), Pattern(0.5, None)).tolist() == [[True, False]]
    assert WANDA.mask(weight, inputs.T @ inputs, Pattern(0.5, None)).tolist() == [[False, True]]


@each_pattern
def test_sparsegpt(pattern: Pattern) -> None:
    """The lowest w^2 / [H^-1]_cc, of the block or of a row's m columns; with a diagonal of ones, the lowest magnitudes."""
    weights, diagonal = random(64, 24), torch.linspace(0.2, 3, 64)[:, None]
    losses = (weights.double() ** 2 / diagonal.double() ** 2).T.numpy()
    expected = reference.keep_highest(losses, pattern.sparsity, pattern.block or losses.size)
    np.testing.assert_array_equal(SPARSEGPT.keep(weights, diagonal, pattern).T.numpy(), expected)
    assert torch.equal(
        SPARSEGPT.keep(weights, torch.ones(64, 1), pattern).T, MAGNITUDE.mask(weights.T, torch.empty(0), pattern)
    )

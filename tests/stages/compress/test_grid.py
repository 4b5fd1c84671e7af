from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmrepair.stages.checkpoints.grid import Grid, Quantised, round_to_nearest
from llmrepair.stages.compress.solver import factorise, solve
from tests.stages.compress import reference
from tests.stages.compress.reference import Quantiser

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
COLUMNS = 32

rows = st.one_of(
    arrays.arrays(np.float32, COLUMNS, elements=st.floats(-8, 8, width=16)),
    arrays.arrays(np.float32, COLUMNS, elements=st.floats(0.5, 2, width=16)),  # on one side of zero
    st.floats(-2, 2, width=16).map(lambda value: np.full(COLUMNS, value, np.float32)),
    st.integers(0, 99).map(lambda seed: np.random.default_rng(seed).standard_normal(COLUMNS).astype(np.float32)),
)
weights = st.tuples(st.lists(rows, min_size=1, max_size=4).map(np.stack), st.sampled_from([1e-4, 1.0, 50.0])).map(
    lambda drawn: torch.tensor(drawn[0] * np.float32(drawn[1]))
)


def grids(**fixed: Any) -> st.SearchStrategy[Grid]:
    choices: dict[str, st.SearchStrategy[Any]] = {
        "bits": st.sampled_from([2, 3, 4, 8]),
        "group_size": st.sampled_from([-1, 8, 16]),
        "symmetric": st.booleans(),
        "dtype": st.sampled_from(DTYPES),
        "signed_scale": st.booleans(),
    }
    made = st.builds(Grid, **(choices | {name: st.just(value) for name, value in fixed.items()}))
    return made.filter(lambda grid: grid.symmetric or not grid.signed_scale)


def per_weight(parameter: torch.Tensor) -> torch.Tensor:
    """A group's scale or zero point, once for each of its columns."""
    return parameter.float().repeat_interleave(COLUMNS // parameter.shape[1], dim=1)


def solved(weight: torch.Tensor, grid: Grid, order: torch.Tensor | None = None) -> tuple[torch.Tensor, Quantised]:
    """By GPTQ, for inputs that are correlated."""
    inputs = torch.randn(64, COLUMNS, generator=torch.Generator().manual_seed(0)).cumsum(1)
    hessian = inputs.T @ inputs if order is None else (inputs.T @ inputs)[order][:, order]
    new, quantised = solve(weight, factorise(hessian, 0.01)[0], grid, order=order)
    assert quantised is not None
    return new, quantised


@given(weights, grids(), st.sampled_from([None, torch.arange(COLUMNS).flip(0)]))
def test_what_is_stored_is_what_was_used(weight: torch.Tensor, grid: Grid, order: torch.Tensor | None) -> None:
    new, quantised = solved(weight, grid, order)
    assert quantised.scale.dtype == grid.dtype
    assert torch.equal(new, (quantised.codes - per_weight(quantised.zero_point)) * per_weight(quantised.scale))
    assert torch.equal(quantised.dequantise(), new.to(grid.dtype))  # rounded once more where the scale's dtype is narrow


@given(weights, grids())
def test_every_value_is_on_its_groups_grid(weight: torch.Tensor, grid: Grid) -> None:
    for quantised in (solved(weight, grid)[1], round_to_nearest(weight, grid)):
        assert quantised.codes.dtype == quantised.zero_point.dtype == torch.uint8
        assert quantised.codes.shape == weight.shape
        assert quantised.scale.shape == quantised.zero_point.shape == (len(weight), COLUMNS // grid.group_columns(COLUMNS))
        assert max(quantised.codes.max(), quantised.zero_point.max()) <= 2**grid.bits - 1
        assert (quantised.scale != 0).all()
        assert grid.signed_scale or (quantised.scale > 0).all()
        assert quantised.scale.isfinite().all()
        if grid.symmetric:
            assert (quantised.zero_point == 2 ** (grid.bits - 1)).all()


@given(weights, grids(dtype=torch.float32))
def test_no_weight_is_rounded_further_than_half_a_step(weight: torch.Tensor, grid: Grid) -> None:
    quantised = round_to_nearest(weight, grid)
    steps = (quantised.dequantise() - weight).abs() / per_weight(quantised.scale).abs()
    assert steps.max() <= (1 if grid.signed_scale else 0.5) + 1e-4  # what is as far on the other side, and has no value there


@given(weights, grids())
def test_zero_stays_zero(weight: torch.Tensor, grid: Grid) -> None:
    weight[:, ::3] = 0
    assert (round_to_nearest(weight, grid).dequantise()[:, ::3] == 0).all()


@given(weights, grids(dtype=torch.float32))
def test_values_of_a_grid_stay_as_they_are(weight: torch.Tensor, grid: Grid) -> None:
    """Not so in bfloat16, which has too few digits to tell 8-bit codes apart."""
    quantised = round_to_nearest(weight, grid)
    again = grid.codes(quantised.dequantise().T, per_weight(quantised.scale).T, per_weight(quantised.zero_point).T).T
    assert torch.equal(again.to(torch.uint8), quantised.codes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_rounding_is_the_references(bits: int, symmetric: bool, dtype: torch.dtype) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    quantised = round_to_nearest(weight, Grid(bits, 64, symmetric, dtype))
    expected, codes = reference.rtn(weight.double().numpy(), Quantiser(bits, 64, symmetric), quantised.codes.numpy())
    stored = torch.tensor(expected).to(dtype)
    error, expected_error = ((new.double() - weight).square().mean().item() for new in (quantised.dequantise(), stored))
    assert error == pytest.approx(expected_error, rel=0.02)
    if dtype == torch.float32:
        np.testing.assert_array_equal(quantised.codes.numpy(), codes)
        np.testing.assert_allclose(quantised.dequantise().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_signed_scale_is_that_of_llama_cpp() -> None:
    """Whose package `gguf` rounds as its file format does."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    kind = GGMLQuantizationType.Q4_0
    theirs = quants.dequantize(quants.quantize(weight.numpy(), kind), kind)
    ours = round_to_nearest(weight, Grid(4, 32, True, torch.float16, signed_scale=True)).dequantise().numpy()
    off = np.abs(ours - theirs) > 1e-2  # one code, where a scale in float16 puts a weight on the other side of the middle
    assert off.mean() < 1e-3


def test_a_range_too_small_for_the_scales_dtype_becomes_zero() -> None:
    weight = torch.full((1, 8), 1e-9)
    quantised = round_to_nearest(weight, Grid(4, -1, True, torch.float16))
    assert quantised.scale.item() == 1
    assert (quantised.dequantise() == 0).all()

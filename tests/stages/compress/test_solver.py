from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
import pytest
import torch

from llmrepair.stages.checkpoints.grid import Grid, Quantised, round_to_nearest
from llmrepair.stages.compress import solver
from llmrepair.stages.compress.masks import Pattern
from llmrepair.stages.compress.methods.magnitude import MAGNITUDE
from llmrepair.stages.compress.methods.sparsegpt import SPARSEGPT
from llmrepair.stages.compress.methods.wanda import WANDA
from llmrepair.stages.compress.solver import BLOCK, Masking, NotPositiveDefinite, factorise, solve
from tests.models.waits import Waits
from tests.stages.compress import reference
from tests.stages.compress.reference import Array, Codes, Quantiser, output_error

SHAPES = [(96, 256), (64, 192), (128, 384)]  # 192: the last block of 128 columns is not whole
GRIDS = [(bits, group, symmetric) for bits in (2, 3, 4, 8) for group in (-1, 32, 64, 128) for symmetric in (True, False)]
PATTERNS = {
    "0.3": Pattern(0.3, None),
    "0.5": Pattern(0.5, None),
    "0.8": Pattern(0.8, None),
    "2:4": Pattern(0.5, 4),
    "4:8": Pattern(0.5, 8),
}


@dataclass(frozen=True)
class Layer:
    """A random layer's weight [rows, columns] and inputs [tokens, columns], float32."""

    weight: torch.Tensor
    inputs: torch.Tensor

    @cached_property
    def hessian(self) -> torch.Tensor:
        return self.inputs.T @ self.inputs

    @cached_property
    def activation_order(self) -> torch.Tensor:
        return self.hessian.diagonal().argsort(descending=True)

    def doubles(self) -> tuple[Array, Array]:
        return self.weight.double().numpy(), self.inputs.double().numpy()

    def error(self, weight: torch.Tensor | Array) -> float:
        return output_error(self.weight.double().numpy(), np.asarray(weight, np.float64), self.inputs.double().numpy())

    def pruned(self, masking: Masking) -> torch.Tensor:
        new, quantised = solve(self.weight, factorise(self.hessian, reference.DAMPING)[0], masking=masking)
        assert quantised is None
        return new

    def quantised(
        self, grid: Grid, masking: Masking | None = None, order: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Quantised]:
        hessian = self.hessian if order is None else self.hessian[order][:, order]
        new, quantised = solve(self.weight, factorise(hessian, reference.DAMPING)[0], grid, masking, order)
        assert quantised is not None
        return new, quantised


@cache
def layer(rows: int, columns: int, seed: int = 0, tokens: int = 2048) -> Layer:
    """Inputs are correlated: mixtures of directions whose variances fall as 1/k.

    And their features have very different norms, as those of real models have: without that Wanda's score is the magnitude.
    """
    random = np.random.default_rng(seed)
    spectrum = np.arange(1, columns + 1) ** -0.5
    mixed = (random.standard_normal((tokens, columns)) * spectrum) @ random.standard_normal((columns, columns))
    inputs = mixed * np.exp(random.standard_normal(columns))
    weight = 0.02 * random.standard_normal((rows, columns))
    return Layer(torch.tensor(weight, dtype=torch.float32), torch.tensor(inputs, dtype=torch.float32))


def grid(bits: int, group_size: int = -1, symmetric: bool = True, dtype: torch.dtype = torch.float32) -> Grid:
    return Grid(bits, group_size, symmetric, dtype)


def sparsegpt(pattern: Pattern) -> Masking:
    return Masking(pattern.block or BLOCK, partial(SPARSEGPT.keep, pattern=pattern))


def fixed(mask: torch.Tensor) -> Masking:
    """As `wanda+gptq` has it: chosen before."""
    return Masking(mask.shape[1], lambda *_: mask.T)


def assert_as_the_reference(case: Layer, ours: tuple[torch.Tensor, Quantised], theirs: tuple[Array, Codes]) -> None:
    assert case.error(ours[0]) == pytest.approx(case.error(theirs[0]), rel=0.02)
    assert share_equal(codes_of(ours[1]), theirs[1]) > 0.98


def codes_of(quantised: Quantised) -> Codes:
    return quantised.codes.numpy().astype(np.int64)


def share_equal(first: np.ndarray, second: np.ndarray) -> float:
    return float((first == second).mean())


def test_the_cholesky_formulation_is_obqs() -> None:
    """Both are references. They differ in how later columns make up for an error: GPTQ, section 3.3, step 3."""
    weight, inputs = layer(8, 160).doubles()
    quantiser = Quantiser(3, 32, False)
    for compress in (
        partial(reference.gptq, quantiser=quantiser),
        partial(reference.gptq, quantiser=quantiser, order=np.random.default_rng(0).permutation(160)),
        partial(reference.sparsegpt, sparsity=0.5, block=None, quantiser=quantiser),
    ):
        by_cholesky, by_elimination = (
            compress(weight, inputs, updates=how) for how in (reference.by_cholesky, reference.by_elimination)
        )
        np.testing.assert_array_equal(by_cholesky[1], by_elimination[1])
        np.testing.assert_allclose(by_cholesky[0], by_elimination[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ordered", [False, True], ids=["left to right", "activation order"])
@pytest.mark.parametrize(
    "shape, bits, group_size, symmetric", [(shape, *grid) for shape in SHAPES for grid in GRIDS if shape[1] % grid[1] == 0]
)
def test_gptq(shape: tuple[int, int], bits: int, group_size: int, symmetric: bool, ordered: bool) -> None:
    case = layer(*shape)
    order = case.activation_order if ordered else None
    new, quantised = case.quantised(grid(bits, group_size, symmetric), order=order)
    theirs = reference.gptq(
        *case.doubles(),
        Quantiser(bits, group_size, symmetric),
        None if order is None else order.numpy(),
        ties=codes_of(quantised),
    )
    assert_as_the_reference(case, (new, quantised), theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_sparsegpt(shape: tuple[int, int], pattern: Pattern) -> None:
    case = layer(*shape)
    new = case.pruned(sparsegpt(pattern))
    theirs, _ = reference.sparsegpt(*case.doubles(), pattern.sparsity, pattern.block)
    assert case.error(new) == pytest.approx(case.error(theirs), rel=0.02)
    assert share_equal(new.numpy() == 0, theirs == 0) > 0.99
    assert_holds(new, pattern)


def assert_holds(weight: torch.Tensor, pattern: Pattern) -> None:
    """As many zeros as the pattern says, among as many weights."""
    among = [weight.reshape(-1, pattern.block)] if pattern.block else [part.reshape(1, -1) for part in weight.split(BLOCK, 1)]
    for part in among:
        assert ((part == 0).sum(1) == round(pattern.sparsity * part.shape[1])).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "bits, group_size, symmetric", [(2, 32, False), (3, 64, False), (4, 32, True), (4, -1, False), (8, -1, True)]
)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_sparsegpt_and_gptq_in_one_pass(
    shape: tuple[int, int], bits: int, group_size: int, symmetric: bool, pattern: Pattern
) -> None:
    case = layer(*shape)
    chosen: list[torch.Tensor] = []
    masking = sparsegpt(pattern)

    def choose(weights: torch.Tensor, diagonal: torch.Tensor) -> torch.Tensor:
        chosen.append(masking.choose(weights, diagonal))
        return chosen[-1]

    new, quantised = case.quantised(grid(bits, group_size, symmetric), Masking(masking.columns, choose))
    mask = torch.cat(chosen).T
    assert mask.shape == case.weight.shape
    assert (quantised.dequantise()[~mask] == 0).all()  # exactly, whatever the zero point is
    assert (new[~mask] == 0).all()
    assert_holds(mask.float(), pattern)

    theirs = reference.sparsegpt(
        *case.doubles(), pattern.sparsity, pattern.block, Quantiser(bits, group_size, symmetric), ties=codes_of(quantised)
    )
    assert_as_the_reference(case, (new, quantised), theirs)


@pytest.mark.parametrize("bits, group_size, symmetric", [(3, 32, False), (4, -1, True)])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_a_mask_chosen_before_is_kept(bits: int, group_size: int, symmetric: bool, pattern: Pattern) -> None:
    case = layer(96, 256)
    mask = WANDA.mask(case.weight, case.hessian, pattern)
    new, quantised = case.quantised(grid(bits, group_size, symmetric), fixed(mask))
    for weight in (new, quantised.dequantise(), case.pruned(fixed(mask))):
        assert (weight[~mask] == 0).all()
    theirs = reference.gptq(
        *case.doubles(), Quantiser(bits, group_size, symmetric), mask=mask.numpy(), ties=codes_of(quantised)
    )
    assert_as_the_reference(case, (new, quantised), theirs)


def test_a_mask_chosen_before_goes_with_an_order() -> None:
    case, pattern = layer(96, 256), PATTERNS["2:4"]
    mask, order = WANDA.mask(case.weight, case.hessian, pattern), case.activation_order
    new, quantised = case.quantised(grid(4, 32, False), fixed(mask[:, order]), order)
    assert (quantised.dequantise()[~mask] == 0).all()
    theirs = reference.gptq(*case.doubles(), Quantiser(4, 32, False), order.numpy(), mask.numpy(), ties=codes_of(quantised))
    assert_as_the_reference(case, (new, quantised), theirs)


def test_a_grid_spans_what_the_mask_keeps() -> None:
    weight = torch.tensor([[0.1, -0.2, 9.0, 0.3]])
    mask = torch.tensor([[True, True, False, True]])
    _, quantised = Layer(weight, torch.eye(4)).quantised(grid(4, symmetric=False), fixed(mask))
    torch.testing.assert_close(quantised.scale, torch.tensor([[0.5 / 15]]))


@pytest.mark.parametrize("masked", [False, True])
def test_columns_that_do_not_touch_each_other_may_come_in_any_order(masked: bool) -> None:
    """Uncorrelated inputs leave nothing to make up for, so a result in the wrong order of columns would show."""
    weight = layer(16, 64).weight
    alone = Layer(weight, torch.diag(torch.arange(1.0, 65.0)))
    mask = MAGNITUDE.mask(weight, torch.empty(0), PATTERNS["2:4"]) if masked else torch.ones_like(weight, dtype=torch.bool)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    new, quantised = alone.quantised(grid(3, 16, False), fixed(mask[:, order]), order)
    expected = round_to_nearest(weight * mask, grid(3, 16, False))
    torch.testing.assert_close(quantised.scale, expected.scale, rtol=0, atol=0)
    torch.testing.assert_close(new, expected.dequantise(), rtol=0, atol=0)
    torch.testing.assert_close(quantised.dequantise(), new, rtol=0, atol=0)


@pytest.mark.parametrize("bits, group_size, symmetric", [(2, 32, False), (3, -1, True), (4, 128, True)])
def test_gptq_beats_rounding(bits: int, group_size: int, symmetric: bool) -> None:
    choice = grid(bits, group_size, symmetric)
    assert_ordered(
        lambda case: round_to_nearest(case.weight, choice).dequantise(),
        lambda case: case.quantised(choice)[1].dequantise(),
    )


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_sparsegpt_beats_wanda_beats_magnitude(pattern: Pattern) -> None:
    assert_ordered(
        lambda case: case.weight * MAGNITUDE.mask(case.weight, torch.empty(0), pattern),
        lambda case: case.weight * WANDA.mask(case.weight, case.hessian, pattern),
        lambda case: case.pruned(sparsegpt(pattern)),
    )


def assert_ordered(*methods: Callable[[Layer], torch.Tensor]) -> None:
    """Each method's output error is smaller than the one's before, in 9 of 10 seeds."""
    errors = np.array(
        [[case.error(method(case)) for method in methods] for case in (layer(64, 256, seed) for seed in range(10))]
    )
    assert (np.diff(errors, axis=1) < 0).all(axis=1).sum() >= 9


def test_factorise() -> None:
    hessian = layer(8, 64).hessian
    factor, damping = factorise(hessian, 0.01)
    assert damping == 0.01
    assert torch.equal(factor, factor.triu())
    damped = reference.damped_hessian(layer(8, 64).doubles()[1])
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(damped), rtol=1e-3, atol=1e-5 * np.linalg.inv(damped).max())


@pytest.mark.parametrize("below_zero, needed", [(0.005, 0.01), (0.05, 0.1), (0.5, 1.0), (5.0, 10.0), (2000.0, 10000.0)])
def test_damping_rises_by_tens_until_the_factorisation_succeeds(below_zero: float, needed: float) -> None:
    hessian = torch.tensor([[1.0, 1 + below_zero], [1 + below_zero, 1.0]])  # its eigenvalues: 2 + below_zero, -below_zero
    factor, damping = factorise(hessian, 0.01)
    assert damping == pytest.approx(needed)
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(hessian + needed * torch.eye(2)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (3, 3), (7, 7), (2, 5)], ids=str)
def test_no_damping_mends_a_hessian_that_is_not_finite(value: float, place: tuple[int, int]) -> None:
    hessian = torch.eye(8)
    hessian[place] = hessian[place[::-1]] = value
    with pytest.raises(NotPositiveDefinite):
        factorise(hessian, 0.01)


def test_inputs_may_be_as_small_as_normal_floats_go() -> None:
    """Smaller ones are zeros to the Cholesky factorisation of some processors."""
    smallest = 2 * torch.finfo(torch.float32).tiny
    factor, damping = factorise(smallest * torch.eye(8), 0.01)
    assert damping == 0.01
    torch.testing.assert_close(factor, (1.01 * smallest) ** -0.5 * torch.eye(8), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bits, group_size, symmetric", GRIDS)
def test_a_layer_that_no_token_reached_is_rounded_to_nearest(bits: int, group_size: int, symmetric: bool) -> None:
    choice = grid(bits, group_size, symmetric)
    unreached = Layer(layer(16, 256).weight, torch.zeros(1, 256))
    expected = round_to_nearest(unreached.weight, choice)
    for order in (None, unreached.activation_order):
        new, quantised = unreached.quantised(choice, order=order)
        assert torch.equal(quantised.codes, expected.codes)
        assert torch.equal(quantised.zero_point, expected.zero_point)
        assert torch.equal(new, expected.dequantise())


def test_a_layer_that_no_token_reached_is_pruned_by_magnitude() -> None:
    unreached = Layer(layer(16, 128).weight, torch.zeros(1, 128))
    expected = unreached.weight * MAGNITUDE.mask(unreached.weight, torch.empty(0), PATTERNS["0.5"])
    assert torch.equal(unreached.pruned(sparsegpt(PATTERNS["0.5"])), expected)


def test_a_feature_that_is_always_zero_changes_nothing() -> None:
    """Neither its column's errors reach others, nor theirs it."""
    case = layer(16, 64)
    inputs = case.inputs.clone()
    inputs[:, 10] = 0
    new, _ = Layer(case.weight, inputs).quantised(grid(3, symmetric=False))
    expected = round_to_nearest(case.weight, grid(3, symmetric=False)).dequantise()
    assert torch.equal(new[:, 10], expected[:, 10])


@pytest.mark.parametrize("order", [None, torch.arange(255, -1, -1)], ids=["in order", "ordered"])
def test_a_gpu_is_not_waited_for_in_the_loop_over_columns(order: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = []
    monkeypatch.setattr(solver, "_kernel", lambda device: lambda weights, *others: spans.append(len(weights)))
    masking = None if order is not None else Masking(64, lambda weights, diagonal: Pattern(0.5, 4).keep(weights.T).T)
    factor, _ = factorise(layer(96, 256).hessian, reference.DAMPING)
    with Waits() as waits:
        solve(layer(96, 256).weight, factor, grid(3, 32), masking, order)
    assert waits.number == 0
    assert spans == (8 * [32] if order is None else 2 * [BLOCK])

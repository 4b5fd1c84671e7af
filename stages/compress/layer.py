"""Linear layers compressed by any method, from their weights and their inputs' Hessian alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from llmrepair.stages.checkpoints.grid import Grid, Quantised, round_to_nearest
from llmrepair.stages.compress.masks import Pattern
from llmrepair.stages.compress.methods.base import Pruner
from llmrepair.stages.compress.solver import BLOCK, Masking, factorise, solve


@dataclass(frozen=True)
class LayerRecipe:
    """What is done to each layer.

    Attributes:
        pruner: how the weights that become zero are chosen; None keeps all.
        pattern: how many of them, where.
        grid: what the others are rounded to; None leaves them as they are.
        compensate: columns make up for the errors of those before them (GPTQ, SparseGPT).
        activation_order: columns with the largest inputs first (only where errors are compensated).
        damping: share of the Hessian's mean diagonal that is added to its diagonal before it is factorised.
    """

    pruner: Pruner | None
    pattern: Pattern
    grid: Grid | None
    compensate: bool
    activation_order: bool
    damping: float


@dataclass(frozen=True)
class CompressedLayer:
    """A layer's new weight [rows, columns] in its old dtype, and as codes where it is quantised."""

    weight: torch.Tensor
    quantised: Quantised | None
    damping: float | None
    """Share of the Hessian's mean diagonal that had to be added to its diagonal; None where nothing was factorised."""


def compress_layers(weights: Sequence[torch.Tensor], hessian: torch.Tensor, recipe: LayerRecipe) -> Iterator[CompressedLayer]:
    """Compresses layers that share their inputs.

    Args:
        weights: [rows, columns] each, rows are outputs.
        hessian: mean of x x^T over the inputs, float32 [columns, columns].

    Raises:
        NotPositiveDefinite: the inputs hold infinities or NaN.
    """
    solver = _Solver(hessian, recipe) if recipe.compensate else None
    for weight in weights:
        mask = recipe.pruner.mask(weight.float(), hessian, recipe.pattern) if recipe.pruner else None
        yield solver.solve(weight, mask) if solver else _independent(weight, mask, recipe)


def _independent(weight: torch.Tensor, mask: torch.Tensor | None, recipe: LayerRecipe) -> CompressedLayer:
    """Each weight by itself: rounded to nearest, or zero, or kept."""
    kept = weight if mask is None else weight * mask
    if recipe.grid is None:
        return CompressedLayer(kept, None, None)
    quantised = round_to_nearest(kept, recipe.grid)
    return CompressedLayer(quantised.dequantise().to(weight.dtype), quantised, None)


class _Solver:
    """Weights that make up for each other's errors. The Hessian is factorised once for all layers."""

    def __init__(self, hessian: torch.Tensor, recipe: LayerRecipe):
        self._recipe = recipe
        self._order = hessian.diagonal().argsort(descending=True, stable=True) if recipe.activation_order else None
        ordered = hessian if self._order is None else hessian[self._order][:, self._order]
        self._factor, self._damping = factorise(ordered, recipe.damping)

    def solve(self, weight: torch.Tensor, mask: torch.Tensor | None) -> CompressedLayer:
        values, quantised = solve(weight, self._factor, self._recipe.grid, self._masking(mask), self._order)
        new = quantised.dequantise() if quantised else values
        return CompressedLayer(new.to(weight.dtype), quantised, self._damping)

    def _masking(self, mask: torch.Tensor | None) -> Masking | None:
        if mask is not None:
            columns = mask.T if self._order is None else mask.T[self._order]
            return Masking(len(columns), lambda weights, diagonal: columns)
        pruner, pattern = self._recipe.pruner, self._recipe.pattern
        if pruner is None:
            return None
        return Masking(pattern.block or BLOCK, lambda weights, diagonal: pruner.keep(weights, diagonal, pattern))


def output_error(before: torch.Tensor, after: torch.Tensor, hessian: torch.Tensor) -> float:
    """How far a layer's outputs are off: ||(W - W') X||^2 / ||W X||^2 over the inputs X that the Hessian was made of.

    Without inputs (a Hessian of zeros) it is ||W - W'||^2 / ||W||^2.
    """
    if not hessian.any():
        hessian = torch.eye(len(hessian), device=hessian.device)
    before, difference = before.float(), before.float() - after.float()
    return float(((difference @ hessian) * difference).sum() / ((before @ hessian) * before).sum())

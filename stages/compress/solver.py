"""Compressing one linear layer so that its outputs change least: GPTQ, SparseGPT, and both in one pass.

A pass goes through the layer's columns. A column is rounded to its grid, or set to zero where the mask says so, and the error
that this makes in the layer's outputs is taken back, as far as it can be, by the columns that are still to come (Frantar et
al. 2022, GPTQ, arXiv 2210.17323, algorithm 1; Frantar and Alistarh 2023, SparseGPT, arXiv 2301.00774, algorithm 1 and section
3.5, "joint sparsification and quantization"). Inside, weights are [columns, rows]: a column lies in one piece of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import pairwise

import torch

from llmrepair.stages.checkpoints.grid import Grid, Quantised

BLOCK = 128
"""Columns whose errors are passed on to later blocks together, and among which SparseGPT chooses an unstructured mask."""
DAMPING_STEP, LAST_DAMPING = 10.0, 1e4


class NotPositiveDefinite(Exception):
    """A Hessian that no damping makes positive definite: it holds infinities or NaN."""


@dataclass(frozen=True)
class Masking:
    """Which weights become zero: `choose` is asked for `columns` columns whenever the pass gets to the first of them.

    `choose` takes their weights [columns, rows] as errors so far have left them, and the factor's diagonal [columns, 1], and
    returns what to keep as bool [columns, rows].
    """

    columns: int
    choose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def factorise(hessian: torch.Tensor, damping: float) -> tuple[torch.Tensor, float]:
    """The upper Cholesky factor U [columns, columns] of a damped Hessian's inverse, U^T U, and the damping that it took.

    Args:
        damping: share of the mean diagonal that is added to the diagonal (GPTQ, section 3.3), and ten times more for as long
            as the factorisation fails.

    Raises:
        NotPositiveDefinite: no damping helps.
    """
    mean = hessian.diagonal().mean()
    mean = torch.where(mean == 0, 1.0, mean)  # no input ever reached the layer: all directions count the same
    while damping <= LAST_DAMPING:
        # H is read backwards, for its factor R R^T with R upper triangular: then H^-1 = R^-T R^-1.
        damped = (hessian + (damping * mean).expand(len(hessian)).diag()).flip(0, 1)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            torch.eye(len(damped), out=damped)
            inverse = torch.linalg.solve_triangular(lower, damped.T, upper=False, out=damped.T)
            return inverse.flip(0, 1), damping
        damping *= DAMPING_STEP
    raise NotPositiveDefinite


def solve(
    weight: torch.Tensor,
    factor: torch.Tensor,
    grid: Grid | None = None,
    masking: Masking | None = None,
    order: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Quantised | None]:
    """Makes a layer's later columns make up for the errors of the earlier ones.

    Args:
        weight: [rows, columns].
        factor: `factorise` of the Hessian [columns, columns], with its columns in `order`.
        grid: None to prune only.
        masking: None to quantise only.
        order: in which the columns are gone through (activation order); None for left to right. With an order each group's
            grid is fitted beforehand, without one when the pass gets to the group; to the weights that the mask keeps, as far
            as it is chosen by then.

    Returns:
        The new weight [rows, columns] in float32 and, where there is a grid, the same as codes.
    """
    return _Pass(weight, factor, grid, masking, order).run()


@cache
def _kernel(device: torch.device) -> Callable[..., None] | None:
    """What takes a span's columns at once; None where they are taken one by one."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    from llmrepair.stages.compress.solver_kernel import compress_span

    return compress_span


class _Pass:
    def __init__(
        self,
        weight: torch.Tensor,
        factor: torch.Tensor,
        grid: Grid | None,
        masking: Masking | None,
        order: torch.Tensor | None,
    ) -> None:
        columns, rows = weight.shape[1], weight.shape[0]
        self._factor, self._diagonal, self._masking, self._grid = factor, factor.diagonal()[:, None], masking, grid
        self._in_order = order is None
        self._order = torch.arange(columns, device=weight.device) if order is None else order
        weights = weight.float().T.contiguous()
        if grid:
            self._group = grid.group_columns(columns)
            self._scale, self._zero_point = weights.new_empty(2, columns // self._group, rows)
            self._codes = weights.new_empty((columns, rows), dtype=torch.uint8)
        self._weights = weights if self._in_order else weights[self._order]
        self._kept = torch.ones_like(self._weights, dtype=torch.bool)

    @cached_property
    def _places(self) -> list[int]:
        """Where each column stands in the layer."""
        return self._order.tolist()

    def run(self) -> tuple[torch.Tensor, Quantised | None]:
        for start in range(0, len(self._weights), BLOCK):
            stop = min(start + BLOCK, len(self._weights))
            errors = self._block(start, stop)
            self._weights[stop:] -= self._factor[start:stop, stop:].T @ errors
        weight = torch.empty_like(self._weights)
        weight[self._order] = self._weights
        return weight.T.contiguous(), self._quantised()

    def _block(self, start: int, stop: int) -> torch.Tensor:
        """Compresses columns `start` to `stop` and returns their errors [columns, rows], to be taken back by later blocks."""
        errors = torch.empty_like(self._weights[start:stop])
        for first, last in pairwise(self._bounds(start, stop)):
            self._choose_and_fit(first, start, errors)
            self._compress_span(slice(first, last), start, errors)
        return errors

    def _bounds(self, start: int, stop: int) -> list[int]:
        """Where a mask is chosen or a grid fitted on the way through a block, and where it begins and ends."""
        steps = [self._masking.columns] if self._masking else []
        steps += [self._group] if self._grid and self._in_order else []
        inside = {column for step in steps for column in range(start + -start % step, stop, step)}
        return sorted({start, *inside, stop})

    def _choose_and_fit(self, column: int, start: int, errors: torch.Tensor) -> None:
        """What is decided when the pass gets to a column."""
        if self._masking and column % self._masking.columns == 0:
            span = slice(column, column + self._masking.columns)
            self._kept[span] = self._masking.choose(self._current(span, start, errors), self._diagonal[span])
        if self._grid and not self._in_order and column == 0:
            self._fit_all_groups(self._grid)
        if self._grid and self._in_order and column % self._group == 0:
            span, group = slice(column, column + self._group), column // self._group
            members = self._current(span, start, errors) * self._kept[span]  # no grid need reach what becomes zero
            self._scale[group], self._zero_point[group] = self._grid.fit(members)

    def _compress_span(self, span: slice, start: int, errors: torch.Tensor) -> None:
        """Compresses columns for which all is decided."""
        if (kernel := _kernel(self._weights.device)) is not None:
            self._compress_at_once(kernel, span, start, errors)
            return
        for column in range(span.start, span.stop):
            before = self._current(slice(column, column + 1), start, errors)[0]
            after = self._compressed(before, column)
            errors[column - start] = (before - after) / self._diagonal[column]
            self._weights[column] = after

    def _compress_at_once(self, kernel: Callable[..., None], span: slice, start: int, errors: torch.Tensor) -> None:
        self._weights[span] = self._current(span, start, errors)
        own = self._weights[span], self._factor[span, span], self._kept[span], self._order[span]
        grid = (self._scale, self._zero_point, self._codes) if self._grid else None
        group, last = (self._group, 2**self._grid.bits - 1) if self._grid else (1, 0)
        kernel(*own, grid, group, last, errors[span.start - start : span.stop - start])

    def _fit_all_groups(self, grid: Grid) -> None:
        """Before the first column, to the weights as they are given; columns of one group come far apart."""
        weights = torch.empty_like(self._weights)
        weights[self._order] = self._weights * self._kept
        for group, members in enumerate(weights.split(self._group)):
            self._scale[group], self._zero_point[group] = grid.fit(members)

    def _current(self, span: slice, start: int, errors: torch.Tensor) -> torch.Tensor:
        """Columns from `span.start` on as the errors of the block that begins at `start` leave them. [columns, rows]"""
        first = span.start
        return self._weights[span] - self._factor[start:first, span].T @ errors[: first - start]

    def _compressed(self, before: torch.Tensor, column: int) -> torch.Tensor:
        """What becomes of a column's weights [rows]."""
        if not self._grid:
            return before * self._kept[column]
        place = self._places[column]
        scale, zero_point = self._scale[place // self._group], self._zero_point[place // self._group]
        codes = torch.where(self._kept[column], self._grid.codes(before, scale, zero_point), zero_point)
        self._codes[place] = codes
        return (codes - zero_point) * scale

    def _quantised(self) -> Quantised | None:
        if not self._grid:
            return None
        scale, zero_point = self._scale.T.to(self._grid.dtype), self._zero_point.T.to(torch.uint8)
        codes = self._codes.T.contiguous()
        return Quantised(codes, scale.contiguous(), zero_point.contiguous(), self._grid.bits, self._grid.symmetric)

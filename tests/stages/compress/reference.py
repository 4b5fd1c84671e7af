"""GPTQ, OBQ, SparseGPT, Wanda and magnitude pruning as their papers put them: float64, one column after the other, slow.

Weights are [rows, columns], inputs [tokens, columns]. H is X X^T of the papers, whose factors on H change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

Updates = Callable[[Array], tuple[Array, Array]]
"""Makes of H what a unit of change in column q takes off the later columns, in row q of [columns, columns], and [H_F^-1]_qq."""


DAMPING = 0.01
"""As in both papers."""


def damped_hessian(inputs: Array) -> Array:
    """H with 1 % of the mean diagonal on its diagonal (GPTQ, section 3.3, step 3)."""
    hessian = inputs.T @ inputs
    return hessian + DAMPING * np.mean(np.diag(hessian)) * np.eye(len(hessian))


def by_cholesky(hessian: Array) -> tuple[Array, Array]:
    """GPTQ, algorithm 1: from Cholesky(H^-1)^T."""
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    return upper / np.diag(upper)[:, None], np.diag(upper) ** 2


def by_elimination(hessian: Array) -> tuple[Array, Array]:
    """OBQ (GPTQ, equations 2 and 3): from H_F^-1 over the columns F that remain, each by Gaussian elimination from the last."""
    inverse = np.linalg.inv(hessian)
    updates, diagonal = [], []
    for q in range(len(hessian)):
        np.testing.assert_allclose(inverse[q:, q:], np.linalg.inv(hessian[q:, q:]), rtol=1e-6, atol=1e-9 * inverse.max())
        updates.append(inverse[q] / inverse[q, q])
        diagonal.append(inverse[q, q])
        inverse = inverse - np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
    return np.stack(updates), np.array(diagonal)


@dataclass(frozen=True)
class Quantiser:
    bits: int
    group_size: int
    symmetric: bool

    def group(self, column: int, columns: int) -> slice:
        """The columns that share a column's grid."""
        size = columns if self.group_size == -1 else self.group_size
        return slice(column // size * size, column // size * size + size)

    def fit(self, group: Array) -> tuple[Array, Codes]:
        """All values that a group's weights may take [rows, 2**bits], and which of them is zero [rows]."""
        last = 2**self.bits - 1
        if self.symmetric:
            scale = 2 * np.abs(group).max(axis=1) / last
            zero = np.full(len(group), 2 ** (self.bits - 1))
        else:
            low, high = np.minimum(group.min(axis=1), 0), np.maximum(group.max(axis=1), 0)
            scale = (high - low) / last
            zero = np.round(-low / np.where(scale, scale, 1)).astype(np.int64)
        return scale[:, None] * (np.arange(2**self.bits) - zero[:, None]), zero


def nearest(values: Array, weights: Array, ties: Codes | None) -> Codes:
    """Which value is nearest to each of a column's weights [rows].

    The largest weight of a symmetric group lies midway between two values if it is negative, so that rounding errors decide.
    Where float32 cannot tell which is nearer, it is the one in `ties` [rows], if that is one of them.
    """
    distances = np.abs(values - weights[:, None])
    nearly = distances <= distances.min(axis=1, keepdims=True) + 1e-6 * np.ptp(values, axis=1)[:, None]
    codes = distances.argmin(axis=1)
    return codes if ties is None else np.where(nearly[np.arange(len(ties)), ties], ties, codes)


@dataclass(frozen=True)
class Masking:
    """When the pass gets to `columns` more columns, `choose` tells what to keep of them, given all weights and a slice."""

    columns: int
    choose: Callable[[Array, slice], Mask]


def gptq(
    weight: Array,
    inputs: Array,
    quantiser: Quantiser,
    order: Codes | None = None,
    mask: Mask | None = None,
    updates: Updates = by_cholesky,
    ties: Codes | None = None,
) -> tuple[Array, Codes]:
    """GPTQ, algorithm 1, where a mask's other weights become zero. With an order grids are fitted to the given weights.

    No grid spans what becomes zero.

    Returns:
        The new weight and its codes, [rows, columns] both.
    """
    walked = np.arange(weight.shape[1]) if order is None else order
    steps, _ = updates(damped_hessian(inputs[:, walked]))
    masking = None if mask is None else Masking(len(walked), lambda weights, among: mask[:, walked])
    return _pass(weight, steps, walked, quantiser, masking, order is not None, ties)


def sparsegpt(
    weight: Array,
    inputs: Array,
    sparsity: float,
    block: int | None,
    quantiser: Quantiser | None = None,
    updates: Updates = by_cholesky,
    ties: Codes | None = None,
) -> tuple[Array, Codes]:
    """SparseGPT, algorithm 1, where B_s is 128, or m of an n:m pattern; with a quantiser the joint pass of section 3.5."""
    steps, diagonal = updates(damped_hessian(inputs))

    def choose(weights: Array, among: slice) -> Mask:
        losses = weights[:, among] ** 2 / diagonal[among]
        return keep_highest(losses, sparsity, block or losses.size)

    return _pass(weight, steps, np.arange(weight.shape[1]), quantiser, Masking(block or 128, choose), False, ties)


def rtn(weight: Array, quantiser: Quantiser, ties: Codes | None = None) -> tuple[Array, Codes]:
    """Every weight to the nearest value: no column makes up for another."""
    columns = weight.shape[1]
    return _pass(weight, np.zeros((columns, columns)), np.arange(columns), quantiser, None, True, ties)


def _pass(
    weight: Array,
    steps: Array,
    order: Codes,
    quantiser: Quantiser | None,
    masking: Masking | None,
    fitted_before: bool,
    ties: Codes | None,
) -> tuple[Array, Codes]:
    weights, kept = weight[:, order].copy(), np.ones(weight.shape, dtype=bool)
    result, codes, grids = np.zeros_like(weight), np.zeros(weight.shape, dtype=np.int64), {}
    for place, column in enumerate(order):
        if masking and place % masking.columns == 0:
            among = slice(place, place + masking.columns)
            kept[:, among] = masking.choose(weights, among)
        if place == 0:
            given = np.zeros_like(weight)
            given[:, order] = weight[:, order] * kept
        before, keep = weights[:, place].copy(), kept[:, place]
        result[:, column] = np.where(keep, before, 0)
        if quantiser:
            group = quantiser.group(column, len(order))
            if group.start not in grids:  # without an order, places are columns
                grids[group.start] = quantiser.fit(given[:, group] if fitted_before else (weights * kept)[:, group])
            values, zero = grids[group.start]
            chosen = nearest(values, before, None if ties is None else ties[:, column])
            codes[:, column] = np.where(keep, chosen, zero)
            result[:, column] = values[np.arange(len(values)), codes[:, column]]
        weights[:, place + 1 :] -= np.outer(before - result[:, column], steps[place, place + 1 :])
    return result, codes


def keep_highest(scores: Array, sparsity: float, among: int) -> Mask:
    """Drops the lowest of each run of `among` scores, as they follow one another row by row."""
    kept = np.ones((scores.size // among, among), dtype=bool)
    for run, keep in zip(scores.reshape(-1, among), kept, strict=True):
        for lowest in sorted(range(among), key=run.tolist().__getitem__)[: round(sparsity * among)]:
            keep[lowest] = False
    return kept.reshape(scores.shape)


def wanda(weight: Array, inputs: Array, sparsity: float, block: int | None) -> Mask:
    """|W| times the norm of the feature, compared within each row (Wanda, section 3)."""
    scores = np.abs(weight) * np.array([np.linalg.norm(feature) for feature in inputs.T])
    return keep_highest(scores, sparsity, block or weight.shape[1])


def magnitude(weight: Array, sparsity: float, block: int | None) -> Mask:
    """|W|, compared within the layer."""
    return keep_highest(np.abs(weight), sparsity, block or weight.size)


def output_error(weight: Array, compressed: Array, inputs: Array) -> float:
    """||(W - W') X||^2 / ||W X||^2."""
    return float(np.linalg.norm(inputs @ (weight - compressed).T) ** 2 / np.linalg.norm(inputs @ weight.T) ** 2)

"""The best low-rank terms beside compressed weights, in closed form. Tensors in, tensors out.

Shapes: a layer has n outputs and m inputs; r is a rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from llmrepair.stages.repairs.low_rank.stage import Kind


class Compensation(NamedTuple):
    """What a layer's error is made up for with; of rank r the first r directions are the best."""

    directions: torch.Tensor
    """[n, r], orthonormal: B of the low-rank term B A."""
    shares: torch.Tensor
    """[r, m]: A."""
    gains: torch.Tensor
    """[r], by how much each direction lowers the mean squared error of the outputs; of `exact` the largest first."""


def compensation(error: torch.Tensor, moment: torch.Tensor, rank: int, kind: Kind) -> Compensation:
    """Matrices B [n, r] and A [r, m] with the least E |(error - B A) x|^2 for inputs x.

    With M = E[x x^T] and the eigenvectors U of error M error^T with the r largest eigenvalues, it is B = U and A = U^T error:
    what the outputs' error is in its principal directions. This is the solution of QERA (arXiv 2410.06040, theorem 1:
    B A = SVD_r(error R) R^-1 with R R = M) and of EoRA (arXiv 2410.21271, with R = Q sqrt(eigenvalues) of M = Q ... Q^T), and
    needs neither roots nor inverses of M, which may be singular.

    Args:
        error: [n, m], what compression took from the weights.
        moment: M [m, m].
        kind: exact; diagonal: of M the diagonal alone (LQER, arXiv 2402.02446; QERA, theorem 2); plain: the identity in the
            place of M, the singular values of the error itself (ZeroQuant-V2, arXiv 2303.08302).
    """
    seen = {"exact": moment, "diagonal": moment.diagonal().diag(), "plain": torch.eye(len(moment)).to(moment)}[kind]
    basis, inner = torch.linalg.qr(error) if len(error) > len(moment) else (None, error)  # few inputs span few outputs
    _, vectors = torch.linalg.eigh(inner @ seen @ inner.T)
    directions = vectors.flip(1)[:, :rank]
    shares = directions.T @ inner
    gains = ((shares @ moment) * shares).sum(1).clamp(min=0)
    return Compensation(directions if basis is None else basis @ directions, shares, gains)


def power(matrix: torch.Tensor, moment: torch.Tensor) -> float:
    """E |matrix x|^2."""
    return float(((matrix @ moment) * matrix).sum())


def shared_ranks(gains: Mapping[str, torch.Tensor], costs: Mapping[str, int], budget: int) -> dict[str, int]:
    """Ranks of layers that gain the most for `budget` parameters in all: the next best direction of any, as long as it fits.

    Args:
        gains: of each layer's directions, the largest first.
        costs: parameters of a direction of each layer.
    """
    every = [(float(gain) / costs[name], name) for name, of_layer in gains.items() for gain in of_layer]
    ranks = dict.fromkeys(gains, 0)
    for gain, name in sorted(every, key=lambda each: -each[0]):
        if gain > 0 and costs[name] <= budget:
            ranks[name] += 1
            budget -= costs[name]
    return ranks

"""Paired comparisons of item results. Arrays in, numbers out.

An item that the dense model gets right and the compressed one gets wrong is *lost*; one that both get right is *kept*; one
that both get wrong was *never known*, so what a repair gets right there is learning and luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Difference:
    """Mean difference between two results on the same n items, in [-1, 1], with a paired bootstrap interval."""

    value: float
    low: float
    high: float
    p_value: float
    """McNemar's exact two-sided test of the items on which the two disagree."""
    n: int


def paired_difference(results: NDArray[Any], baseline: NDArray[Any]) -> Difference:
    """`results` minus `baseline`, both [n] bool."""
    differences = results.astype(np.float64) - baseline
    n = len(differences)
    picks = np.random.default_rng(_SEED).integers(n, size=(_RESAMPLES, n))
    low, high = np.percentile(differences[picks].mean(1), [2.5, 97.5])
    better, worse = int((results & ~baseline).sum()), int((~results & baseline).sum())
    return Difference(float(differences.mean()), float(low), float(high), mcnemar_p(better, worse), n)


def mcnemar_p(better: int, worse: int) -> float:
    """Two-sided exact p-value that `better` and `worse` disagreements are a fair coin's (McNemar 1947, binomial form)."""
    n, k = better + worse, min(better, worse)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n)


@dataclass(frozen=True)
class Rates:
    """What a repair did to lost, kept and never-known items: counts, and how many of each it gets right (lost, never known)
    or breaks (kept)."""

    lost: int
    recovered: int
    kept: int
    broken: int
    never_known: int
    lucky: int


def rates(dense: NDArray[Any], compressed: NDArray[Any], repaired: NDArray[Any]) -> Rates:
    """All [n] bool over the same items."""
    lost, kept, never = dense & ~compressed, dense & compressed, ~dense & ~compressed
    return Rates(
        lost=int(lost.sum()),
        recovered=int((lost & repaired).sum()),
        kept=int(kept.sum()),
        broken=int((kept & ~repaired).sum()),
        never_known=int(never.sum()),
        lucky=int((never & repaired).sum()),
    )

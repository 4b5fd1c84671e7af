"""Paired comparisons of results on the same items. Arrays in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval, and the two-sided p-value that it is zero."""

    value: float
    low: float
    high: float
    p_value: float


def crossed_mean(values: NDArray[Any]) -> Mean:
    """Mean of `values` [K, n], of K > 1 seeds on n > 1 items, for other seeds and other items of their kind.

    Seeds and items are crossed random effects: the variance of the mean is (MS_seeds + MS_items - MS_residual) / (K n), its
    degrees of freedom are Satterthwaite's (Cornfield and Tukey 1956; Satterthwaite 1946).
    """
    k, n = values.shape
    mean, of_seeds, of_items = values.mean(), values.mean(1), values.mean(0)
    residuals = values - of_seeds[:, None] - of_items + mean
    squares = np.array([n * of_seeds.var(ddof=1), k * of_items.var(ddof=1), (residuals**2).sum() / ((k - 1) * (n - 1))])
    combined = max(squares @ [1, 1, -1], squares[:2].max())  # with few seeds the residual's share can be larger than theirs
    if combined == 0:
        return Mean(float(mean), float(mean), float(mean), 1.0 if mean == 0 else 0.0)
    freedom = combined**2 / (squares**2 / [k - 1, n - 1, (k - 1) * (n - 1)]).sum()
    error = math.sqrt(combined / (k * n))
    half = stats.t.ppf(0.975, freedom) * error
    p_value = 2 * stats.t.sf(abs(mean) / error, freedom)
    return Mean(float(mean), float(mean - half), float(mean + half), float(p_value))


@dataclass(frozen=True)
class Difference(Mean):
    """Mean difference between results on the same n items, in [-1, 1].

    Of one seed with a paired bootstrap interval and McNemar's exact test of the items on which the two disagree; of several as
    `crossed_mean` has them.
    """

    n: int


def paired_difference(results: NDArray[Any], baseline: NDArray[Any]) -> Difference:
    """`results` [K, n] of K seeds minus `baseline` [n], all bool."""
    differences = results.astype(np.float64) - baseline
    seeds, n = differences.shape
    if seeds > 1:
        return Difference(**vars(crossed_mean(differences)), n=n)
    picks = np.random.default_rng(_SEED).integers(n, size=(_RESAMPLES, n))
    low, high = np.percentile(differences[0, picks].mean(1), [2.5, 97.5])
    better, worse = int((results & ~baseline).sum()), int((~results & baseline).sum())
    return Difference(float(differences.mean()), float(low), float(high), mcnemar_p(better, worse), n)


def mcnemar_p(better: int, worse: int) -> float:
    """Two-sided exact p-value that `better` and `worse` disagreements are a fair coin's (McNemar 1947, binomial form)."""
    n, k = better + worse, min(better, worse)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n)

"""Paired comparisons of results on the same items. Arrays in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def crossed_mean(values: NDArray[Any]) -> Mean:
    """Mean of `values` [K, n], of K seeds on n > 1 items, for other seeds and other items of their kind.

    Seeds and items are crossed random effects: the variance of the mean is (MS_seeds + MS_items - MS_residual) / (K n), its
    degrees of freedom are Satterthwaite's (Cornfield and Tukey 1956; Satterthwaite 1946). One seed is taken as it is.
    """
    k, n = values.shape
    mean, of_seeds, of_items = values.mean(), values.mean(1), values.mean(0)
    combined, freedom = of_items.var(ddof=1), n - 1.0
    if k > 1:
        residuals = values - of_seeds[:, None] - of_items + mean
        squares = np.array([n * of_seeds.var(ddof=1), k * combined, (residuals**2).sum() / ((k - 1) * (n - 1))])
        combined = max(squares @ [1, 1, -1], squares[:2].max())  # with few seeds the residual's share can be larger than theirs
        freedom = combined**2 / (squares**2 / [k - 1, n - 1, (k - 1) * (n - 1)]).sum()
    half = stats.t.ppf(0.975, freedom) * math.sqrt(combined / (k * n))
    return Mean(float(mean), float(mean - half), float(mean + half))


@dataclass(frozen=True)
class Difference(Mean):
    """Mean difference between results on the same n items, in [-1, 1]."""

    n: int


def paired_difference(results: NDArray[Any], baseline: NDArray[Any]) -> Difference:
    """`results` [K, n] of K seeds minus `baseline` [n], all bool.

    The interval is that of `crossed_mean` after half an item is added to each cell of the table of right and wrong before and
    after (Agresti and Min 2005, Statistics in Medicine 24:729): it has a width, and covers, also where nothing differs.
    """
    differences = results.astype(np.float64) - baseline
    half_items = np.full((len(results), 2), [math.sqrt(0.5), -math.sqrt(0.5)])  # the sum and the squares of four halves
    mean, value = crossed_mean(np.hstack([differences, half_items])), float(differences.mean())
    return Difference(value, max(-1.0, min(mean.low, value)), min(1.0, max(mean.high, value)), differences.shape[1])

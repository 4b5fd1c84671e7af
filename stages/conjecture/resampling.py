"""Intervals over items and seeds by a Bayesian bootstrap. Arrays in, numbers out.

Items get random weights (Rubin 1981, Annals of Statistics 9:130), the same in every rate that is drawn, so that differences
and ratios of rates on the same items are paired. To the items come half a right one and half a wrong one, of random weights
too: of right and wrong answers of one seed a rate is then drawn from Jeffreys' beta distribution, whose interval is of use at
both ends, where a bootstrap has no spread (Brown, Cai and DasGupta 2001, Statistical Science 16:101). A few seeds are too few
to be drawn from: their mean gets an error of its own from Student's t with K - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_SEED = 0

Draws = NDArray[np.floating[Any]]
"""Values [R] that a number has in as many resamples."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(value: float, draws: Draws) -> Estimate:
    """The percentile interval of `draws`; it always holds `value`."""
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return Estimate(value, min(low, value), max(high, value))


class Resampling:
    """Resamples of `items` items."""

    def __init__(self, items: int, seed: int = _SEED):
        self._generator = np.random.default_rng(seed)
        self._weights = self._generator.standard_exponential((_RESAMPLES, items), dtype=np.float32)

    def rate(self, results: NDArray[Any], among: NDArray[Any]) -> Draws:
        """Draws of the share that `results` [K, n] of K seeds, bool, has of the items `among` [n], bool."""
        values, weights = results[:, among], self._weights[:, among]
        right, wrong = self._generator.standard_gamma(0.5, (2, _RESAMPLES))
        draws = (weights @ values.mean(0, dtype=np.float32) + right) / (weights.sum(1) + right + wrong)
        error = seeds_error(values)
        if error:
            draws += error * self._generator.standard_t(len(values) - 1, _RESAMPLES)
        return np.clip(draws, 0, 1)

    def estimated_rate(self, results: NDArray[Any], among: NDArray[Any]) -> Estimate | None:
        """The share with its interval; None among no items."""
        return estimate(float(results[:, among].mean()), self.rate(results, among)) if among.any() else None


def seeds_error(values: NDArray[Any]) -> float:
    """Standard error of the mean of `values` [K, m] that is due to K seeds alone: what items and chance explain is taken off.

    The component of variance of a crossed design without replication, (MS_seeds - MS_residual) / m, or zero.
    """
    k, m = values.shape
    if k < 2 or m < 2:
        return 0.0
    of_seeds = values.mean(1)
    residuals = values - of_seeds[:, None] - values.mean(0) + values.mean()
    variance = of_seeds.var(ddof=1) - (residuals**2).sum() / ((k - 1) * (m - 1) * m)
    return math.sqrt(max(0.0, variance) / k)

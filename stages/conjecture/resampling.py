"""Intervals over items and seeds by a Bayesian bootstrap. Arrays in, numbers out.

Items get random weights (Rubin 1981, Annals of Statistics 9:130), the same in every rate that is drawn, so that differences
and ratios of rates on the same items are paired. To the items come half a right one and half a wrong one, of random weights
too: of right and wrong answers of one seed a rate is then drawn from Jeffreys' beta distribution, whose interval is of use at
both ends, where a bootstrap has no spread (Brown, Cai and DasGupta 2001, Statistical Science 16:101). A few seeds are too few
to be drawn from: what they add to the error is drawn from Student's t with K - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_SEED = 0
_STEP = 1e-5

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Part(NamedTuple):
    """A rate that a number is made of: the share that `results` [K, n] of K seeds, bool, has of the items `among` [n], bool."""

    results: NDArray[Any]
    among: NDArray[Any]

    @property
    def values(self) -> NDArray[Any]:
        """[K, m] of the m items."""
        return self.results[:, self.among]


class Resampling:
    """Resamples of `items` items, which all numbers share that are estimated by it."""

    def __init__(self, items: int, seed: int = _SEED):
        self._generator = np.random.default_rng(seed)
        self._weights = self._generator.standard_exponential((_RESAMPLES, items), dtype=np.float32)

    def rate(self, part: Part) -> Estimate | None:
        """A share with its interval; None among no items."""
        return self.estimate(lambda rates: rates[..., 0], [part], most=1) if part.among.any() else None

    def estimate(self, function: Callable[[Floats], Floats], parts: Sequence[Part], most: float = math.inf) -> Estimate:
        """A number with its percentile interval, which always holds it.

        Args:
            function: rates [..., C] of the parts -> the number [...].
            parts: C of them, each of the same K seeds, and of one item or more.
            most: the largest that the number can be; the least is then 0.
        """
        rates = np.array([part.values.mean() for part in parts])
        draws = function(np.stack([self._item_draws(part) for part in parts], axis=-1))
        error = seeds_error(_gradient(function, rates), parts)
        if error:
            draws = draws + error * self._generator.standard_t(len(parts[0].results) - 1, _RESAMPLES)
        value = float(function(rates))
        low, high = np.percentile(draws if most == math.inf else np.clip(draws, 0, most), [2.5, 97.5]).tolist()
        return Estimate(value, min(low, value), max(high, value))

    def _item_draws(self, part: Part) -> Floats:
        """Rates [R] of the same seeds and other items."""
        weights, of_items = self._weights[:, part.among], part.values.mean(0, dtype=np.float32)
        right, wrong = _answer_weight(of_items) * self._generator.standard_gamma(0.5, (2, _RESAMPLES))
        return (weights @ of_items + right) / (weights.sum(1) + right + wrong)


def _answer_weight(of_items: Floats) -> float:
    """What one answer weighs of an item with K: 1 where all seeds answer alike, about 1 / K where only chance makes them.

    The variance of the items' means [m] as a share of what it is of single answers (a design effect); 1 at both ends.
    """
    mean = float(of_items.mean())
    return float(of_items.var()) / (mean * (1 - mean)) if 0 < mean < 1 else 1.0


def seeds_error(gradient: Floats, parts: Sequence[Part]) -> float:
    """Standard error that is due to K seeds alone, of a number that changes with its parts' rates by `gradient` [C].

    The component of variance of the seeds, which is what the K numbers vary by less what items and chance explain, or zero:
    of a single rate (MS_seeds - MS_residual) / m of the crossed design of K seeds and m items.
    """
    seeds = len(parts[0].results)
    if seeds < 2:
        return 0.0
    of_seeds = np.stack([part.values.mean(1) for part in parts], axis=-1) @ gradient
    variance = of_seeds.var(ddof=1) - gradient**2 @ [_residual_variance(part.values) for part in parts]
    return math.sqrt(max(0.0, variance) / seeds)


def _residual_variance(values: NDArray[Any]) -> float:
    """Of the mean over items of one seed of `values` [K, m], what is due to neither seeds nor items: MS_residual / m."""
    k, m = values.shape
    if m < 2:
        return 0.0
    residuals = values - values.mean(1)[:, None] - values.mean(0) + values.mean()
    return float((residuals**2).sum() / ((k - 1) * (m - 1) * m))


def _gradient(function: Callable[[Floats], Floats], rates: Floats) -> Floats:
    """[C] at `rates` [C], by central differences."""
    steps = _STEP * np.eye(len(rates))
    return (function(rates + steps) - function(rates - steps)) / (2 * _STEP)

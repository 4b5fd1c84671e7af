"""Intervals over items and seeds by a Bayesian bootstrap. Arrays in, numbers out.

Items get random weights (Rubin 1981, Annals of Statistics 9:130), the same in every mean that is drawn, so that differences
and ratios of means over the same items are paired. To right and wrong answers come half a right one and half a wrong one, of
random weights too: of one seed a rate is then drawn from Jeffreys' beta distribution, whose interval is of use at both ends,
where a bootstrap has no spread (Brown, Cai and DasGupta 2001, Statistical Science 16:101).

K seeds are too few to be drawn from. The K numbers that they give have errors of their own, of the seeds and of chance, and
one that they share, for they are asked the same items. The mean's own error has the variance that the K numbers show: no
component of variance is estimated that could come out as zero. The shared error is that of other items without the chance that
the K numbers already show: the draws of the items are shrunk by it (Davison and Hinkley 1997, Bootstrap Methods and their
Application, section 3.8). The interval of both is Student's, of K - 1 degrees of freedom where all the variance is the seeds',
and of as many times more as it is more than theirs. To first order that is Banerjee's interval (1960, Sankhya 22:357), which
holds the truth as often as it should or more often; what it adds beyond is left out, for with three seeds it is too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
    """A mean that a number is made of: that of `results` [K, n] of K seeds over the items `among` [n], bool.

    Results are right and wrong answers, bool, whose mean is a rate, or numbers of any size.
    """

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
            function: means [..., C] of the parts -> the number [...].
            parts: C of them, each of the same K seeds, and of one item or more.
            most: the largest that the number can be; the least is then 0.
        """
        means = np.array([part.values.mean() for part in parts])
        draws = function(self._item_draws(parts))
        seeds = len(parts[0].results)
        if seeds > 1:
            draws = self._of_other_seeds(draws, seeds, *seeds_variance(_gradient(function, means), parts))
        value = float(function(means))
        low, high = np.percentile(draws if most == math.inf else np.clip(draws, 0, most), [2.5, 97.5]).tolist()
        return Estimate(value, min(low, value), max(high, value))

    def _of_other_seeds(self, draws: Floats, seeds: int, chance: float, error: float) -> Floats:
        """Draws [R] of other items that are of other seeds too, with the variances of `seeds_variance`."""
        of_items = _shrunk(draws, chance)
        draws = of_items + math.sqrt(error) * self._generator.standard_normal(_RESAMPLES)
        degrees = (seeds - 1) * (1 + float(of_items.var()) / error) if error else math.inf
        return draws.mean() + _student(degrees) * (draws - draws.mean())

    def _item_draws(self, parts: Sequence[Part]) -> Floats:
        """Means [R, C] of the same seeds and other items."""
        among = np.stack([part.among for part in parts], axis=1).astype(np.float32)
        of_items = np.stack([part.results.mean(0, dtype=np.float32) for part in parts], axis=1) * among
        right, wrong = self._generator.standard_gamma(0.5, (2, _RESAMPLES, len(parts))) * [
            _answer_weight(part) for part in parts
        ]
        draws = (self._weights @ of_items + right) / (self._weights @ among + right + wrong)
        return draws.mean(0) + [_stretch(part) for part in parts] * (draws - draws.mean(0))


def _answer_weight(part: Part) -> float:
    """What one answer weighs of an item with K: 1 where all seeds answer alike, about 1 / K where only chance makes them.

    The variance of the items' means as a share of what it is of single answers (a design effect); 1 at both ends, and 0 of
    numbers that are no answers.
    """
    if part.results.dtype != bool:
        return 0.0
    of_items = part.values.mean(0)
    mean = of_items.mean()
    return float(of_items.var() / (mean * (1 - mean))) if 0 < mean < 1 else 1.0


def _stretch(part: Part) -> float:
    """What a bootstrap of m numbers has to be widened by, for its variance is too small by (m - 1) / (m + 1) and a normal
    distribution's (Hesterberg 2015, American Statistician 69:371); 1 of answers, whose prior has seen to that."""
    m = max(2, int(part.among.sum()))
    return 1.0 if part.results.dtype == bool else math.sqrt((m + 1) / (m - 1)) * _student(m - 1)


def _student(degrees: float) -> float:
    """How many times wider a 95 % interval of Student's t distribution is than that of the normal distribution."""
    return float(stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975))


def seeds_variance(gradient: Floats, parts: Sequence[Part]) -> tuple[float, float]:
    """Of a number that changes with its parts' means, of K > 1 seeds, by `gradient` [C]: the variance that is chance, which
    seeds and items show alike, and that of the mean of the seeds' K numbers, which holds it.

    Of a single mean MS_residual / (K m) and MS_seeds / (K m) of the crossed design of K seeds and m items.
    """
    of_seeds = np.stack([part.values.mean(1) for part in parts], axis=-1) @ gradient
    chance = gradient**2 @ [_residual_variance(part.values) for part in parts]
    return float(chance) / len(of_seeds), float(of_seeds.var(ddof=1)) / len(of_seeds)


def _residual_variance(values: NDArray[Any]) -> float:
    """Of the mean over items of one seed of `values` [K, m], what is due to neither seeds nor items: MS_residual / m."""
    k, m = values.shape
    if m < 2:
        return 0.0
    residuals = values - values.mean(1)[:, None] - values.mean(0) + values.mean()
    return float((residuals**2).sum() / ((k - 1) * (m - 1) * m))


def _shrunk(draws: Floats, variance: float) -> Floats:
    """Draws [R] towards their mean, so that their variance is less by as much; at least zero."""
    mean, spread = draws.mean(), draws.var()
    return mean + math.sqrt(1 - variance / spread) * (draws - mean) if spread > variance else np.full_like(draws, mean)


def _gradient(function: Callable[[Floats], Floats], means: Floats) -> Floats:
    """[C] at `means` [C], by central differences."""
    steps = _STEP * np.eye(len(means))
    return (function(means + steps) - function(means - steps)) / (2 * _STEP)

"""Intervals over subjects and seeds: a Bayesian bootstrap whose weights are drawn for each subject. Arrays in, numbers out.

Items about one person or thing are not independent. So all of a subject's items get one random weight (Rubin 1981, Annals of
Statistics 9:130; of clusters, Field and Welsh 2007, Journal of the Royal Statistical Society B 69:369), the same in every
number, so that differences and ratios are paired.

To right and wrong answers come half a right one and half a wrong one, of random weights: Jeffreys' prior, of subjects that
answer alike. So rates of 0 and 1 have intervals of a width (Brown, Cai and DasGupta 2001, Statistical Science 16:101).

The K numbers of K seeds share an error, for they are asked the same items, and each has one of its own. The variance of the
mean of K is what it would be for other items alone, less what the seeds show too, and the variance of the seeds' numbers over
K. Its interval is Student's, of K - 1 degrees of freedom where all the variance is the seeds', and of more where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmrepair.stages.statistics.resampling import Estimate, Floats

_RESAMPLES = 2000
_SEED = 0


class Share(NamedTuple):
    """What is right of some items."""

    right: NDArray[Any]
    """[K, n] of K seeds: how often each item is right."""
    among: NDArray[Any]
    """[n] or [K, n]: how often it is asked; 0 of an item that does not count."""


@dataclass(frozen=True)
class Drawn:
    """A number, and what it would be of other subjects and seeds."""

    value: float
    draws: Floats

    @property
    def estimate(self) -> Estimate:
        """With its 95 % percentile interval, which always holds it."""
        low, high = np.percentile(self.draws, [2.5, 97.5]).tolist()
        return Estimate(self.value, min(low, self.value), max(high, self.value))

    def equivalence_p(self, margin: float) -> float:
        """p-value that the number lies `margin` or more from 0: the larger one of two one-sided tests (Schuirmann 1987,
        Journal of Pharmacokinetics and Biopharmaceutics 15:657). Below .05 where a 90 % interval lies within the margin."""
        return float(max((self.draws <= -margin).mean(), (self.draws >= margin).mean()))


class Subjects:
    """Resamples of the subjects of n items, which all numbers share that are drawn by it."""

    def __init__(self, subjects: Sequence[Hashable], seed: int = _SEED):
        numbers = {subject: number for number, subject in enumerate(dict.fromkeys(subjects))}
        self.numbers = np.array([numbers[subject] for subject in subjects])
        """[n]: the subject of each item."""
        self._generator = np.random.default_rng(seed)
        of_subjects = self._generator.standard_exponential((_RESAMPLES, len(numbers)), dtype=np.float32)
        self.weights = of_subjects[:, self.numbers]
        """[R, n]."""

    def count(self, among: NDArray[Any]) -> int:
        """How many subjects have items that count [n]."""
        return len(np.unique(self.numbers[among > 0]))

    def draw(self, function: Callable[[Floats, Floats], Floats], parts: Sequence[Share]) -> Drawn:
        """A number that is made of shares.

        Args:
            function: shares [..., C] of the parts, and how much each is a share of [..., C] -> the number [...].
            parts: C of them, of the same K seeds or of one; the share of nothing is 0.
        """
        seeds = max(len(part.right) for part in parts)
        shape = (seeds, len(self.numbers))
        rights, among = (
            np.stack([np.broadcast_to(counts, shape) for counts in each], axis=-1).astype(np.float32)
            for each in zip(*parts, strict=True)
        )  # [K, n, C]
        half_right, half_wrong = self._half_answers(among)
        totals, of_draws = among.sum(1), self.weights @ among  # [K, C], [K, R, C]
        shares = _quotient(self.weights @ rights + half_right, of_draws + half_right + half_wrong)
        return self.of_seeds(function(_quotient(rights.sum(1), totals), totals), function(shares, of_draws))

    def _half_answers(self, among: Floats) -> NDArray[Any]:
        """Random weights [2, R, C], the same for all seeds, of half a right and half a wrong subject."""
        subjects = np.array([self.count(part) for part in among.sum(0).T])
        weights: NDArray[Any] = self._generator.standard_gamma(0.5, (2, _RESAMPLES, len(subjects)))
        return weights * _quotient(among.sum(1).mean(0), subjects)

    def of_seeds(self, values: Floats, draws: Floats, stretch: float = 1.0) -> Drawn:
        """The mean of the numbers [K] of K seeds, by their draws [K, R] for other subjects.

        Args:
            stretch: what the draws have to be widened by.
        """
        seeds, mean = len(values), draws.mean(0)
        of_items, error, degrees = float(mean.var()), 0.0, math.inf
        if seeds > 1:
            shared = (seeds * of_items - draws.var(1).mean()) / (seeds - 1)  # mean covariance of two seeds' draws
            of_items = max(0.0, of_items - (draws.var(1).mean() - shared) / seeds)
            error = float(values.var(ddof=1)) / seeds
            degrees = (seeds - 1) * (1 + of_items / error) if error else math.inf
        wanted = stretch * _student(degrees) * math.sqrt(of_items + error)
        spread = float(mean.std())
        if not spread:
            return Drawn(float(values.mean()), values.mean() + wanted * self._generator.standard_normal(_RESAMPLES))
        return Drawn(float(values.mean()), mean.mean() + wanted / spread * (mean - mean.mean()))


def stretch(subjects: int) -> float:
    """What a bootstrap of so many numbers has to be widened by (Hesterberg 2015, American Statistician 69:371)."""
    m = max(2, subjects)
    return math.sqrt((m + 1) / (m - 1)) * _student(m - 1)


def _quotient(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[Any]:
    """0 where both are."""
    found: NDArray[Any] = numerator / np.where(denominator > 0, denominator, 1)
    return found


def _student(degrees: float) -> float:
    """How many times wider a 95 % interval of Student's t distribution is than that of the normal distribution."""
    return float(stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975)) if math.isfinite(degrees) else 1.0


def lost_again(lost: NDArray[np.bool_], subjects: Subjects) -> Drawn | None:
    """P(lost under draw B | lost under draw A): over all pairs of two draws, of calibration text or of a control's seed.

    sum over A != B of |lost A and lost B|, over (D - 1) times sum over A of |lost A|.

    Args:
        lost: [D, n], which items are lost under each of D > 1 draws.

    Returns:
        None where nothing is lost.
    """
    if not lost.any():
        return None
    times = lost.sum(0)
    return subjects.draw(lambda shares, _: shares[..., 0], [Share((times * (times - 1) / (len(lost) - 1))[None], times)])

"""Scores over items with 95 % intervals. Arrays in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
_RESAMPLES = 2000
_DRAWN_AT_ONCE = 2**15  # what the caches of a CPU hold
_SEED = 0


@dataclass(frozen=True)
class Score:
    """A metric over n items, its standard error, and a 95 % interval; NaN where they are not known, as of a single item that
    is more than right or wrong."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def mean_score(values: NDArray[Any]) -> Score:
    """Mean of per-item values [n], with an interval that stays where such a mean can be.

    Wilson's where all values are 0 or 1; a percentile bootstrap over items where they are shares; else the normal one.
    """
    n = len(values)
    mean = float(values.mean())
    stderr = float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    if np.isin(values, (0, 1)).all():
        low, high = wilson_interval(int(values.sum()), n)
    elif n == 1:
        stderr = low = high = math.nan
    elif ((values >= 0) & (values <= 1)).all():
        low, high = np.percentile(_resampled_means(values), [2.5, 97.5]).tolist()
        low, high = min(low, mean), max(high, mean)  # equal values: rounding must not leave the mean out
    else:
        low, high = mean - Z_95 * stderr, mean + Z_95 * stderr
    return Score(mean, stderr, low, high, n)


def _resampled_means(values: NDArray[Any]) -> NDArray[np.float64]:
    """Means of values [n] drawn with replacement, some resamples at once."""
    generator, at_once = np.random.default_rng(_SEED), max(1, _DRAWN_AT_ONCE // len(values))
    sizes = [min(at_once, _RESAMPLES - start) for start in range(0, _RESAMPLES, at_once)]
    return np.concatenate([generator.choice(values, (size, len(values))).mean(1) for size in sizes])


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927): inside [0, 1] and of use at both ends, where Wald's is not."""
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))  # rounding must not leave the share out


def reported_score(value: float, stderr: float, n: int) -> Score:
    """A value with a standard error that others computed, NaN for none, and the normal interval."""
    return Score(value, stderr, value - Z_95 * stderr, value + Z_95 * stderr, n)


def rate_score(loglikelihoods: NDArray[Any], weights: NDArray[Any], exponential: bool) -> Score:
    """Negative log-likelihood per unit of weight, with a percentile bootstrap over items.

    Args:
        loglikelihoods: [n] in nats.
        weights: [n], what each item counts: words, bytes or 1.
        exponential: True for a perplexity, exp(rate); False for bits, rate / ln 2.
    """

    def rate(totals: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
        nats = -totals / counts
        return np.exp(nats) if exponential else nats / math.log(2)

    n = len(loglikelihoods)
    value = float(rate(loglikelihoods.sum(), weights.sum()))
    if n == 1:
        return Score(value, math.nan, math.nan, math.nan, n)
    picks = np.random.default_rng(_SEED).integers(n, size=(_RESAMPLES, n))
    resampled = rate(loglikelihoods[picks].sum(1), weights[picks].sum(1))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Score(value, float(resampled.std(ddof=1)), float(low), float(high), n)


def total_score(correct: NDArray[Any], weights: NDArray[Any], luck: NDArray[Any]) -> Score:
    """Sum over items of weight (correct - luck) / (1 - luck): what is known, counted in weights.

    Items of one weight and luck have a Wilson interval of their own; the distances of its ends from the estimate add up in
    squares (MOVER: Zou and Donner 2008, Statistics in Medicine 27:1693), so the interval never goes past knowing all.

    Args:
        correct: [n] 0 or 1.
        weights: [n].
        luck: [n] probability of a right answer without knowledge.
    """
    total, variance, below, above = 0.0, 0.0, 0.0, 0.0
    for weight, guessed in sorted(set(zip(weights.tolist(), luck.tolist(), strict=True))):
        right = correct[(weights == weight) & (luck == guessed)]
        score = mean_score(right)
        scale = len(right) * weight / (1 - guessed)
        total += scale * (score.value - guessed)
        variance += (scale * score.stderr) ** 2
        below += (scale * (score.value - score.low)) ** 2
        above += (scale * (score.high - score.value)) ** 2
    return Score(total, math.sqrt(variance), total - math.sqrt(below), total + math.sqrt(above), len(correct))

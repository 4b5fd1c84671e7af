"""Scores over items with 95 % intervals. Arrays in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Score:
    """A metric over n items, its standard error, and a 95 % interval; NaN where they are not known."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def mean_score(values: np.ndarray) -> Score:
    """Mean of per-item values [n]: a Wilson interval where they are all 0 or 1, else the normal one."""
    n = len(values)
    mean = float(values.mean())
    stderr = float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    if np.isin(values, (0, 1)).all():
        low, high = wilson_interval(int(values.sum()), n)
    else:
        low, high = mean - Z_95 * stderr, mean + Z_95 * stderr
    return Score(mean, stderr, low, high, n)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927): inside [0, 1] and of use at both ends, where Wald's is not."""
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))  # rounding must not leave the share out


def reported_score(value: float, stderr: float, n: int) -> Score:
    """A value with a standard error that others computed, NaN for none, and the normal interval."""
    return Score(value, stderr, value - Z_95 * stderr, value + Z_95 * stderr, n)


def rate_score(loglikelihoods: np.ndarray, weights: np.ndarray, exponential: bool) -> Score:
    """Negative log-likelihood per unit of weight, with a percentile bootstrap over items.

    Args:
        loglikelihoods: [n] in nats.
        weights: [n], what each item counts: words, bytes or 1.
        exponential: True for a perplexity, exp(rate); False for bits, rate / ln 2.
    """

    def rate(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
        nats = -totals / counts
        return np.exp(nats) if exponential else nats / math.log(2)

    n = len(loglikelihoods)
    picks = np.random.default_rng(_SEED).integers(n, size=(_RESAMPLES, n))
    resampled = rate(loglikelihoods[picks].sum(1), weights[picks].sum(1))
    low, high = np.percentile(resampled, [2.5, 97.5])
    value = float(rate(loglikelihoods.sum(), weights.sum()))
    return Score(value, float(resampled.std(ddof=1)), float(low), float(high), n)

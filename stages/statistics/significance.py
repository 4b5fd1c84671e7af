"""Tests, their noise floor and their power. Arrays in, numbers out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
_POWER = 0.8
_RESAMPLINGS = 200
_SEED = 0


def mcnemar(results: NDArray[Any], baseline: NDArray[Any]) -> float:
    """p-value that `results` [K, n] of K seeds are no better or worse than `baseline` [n]: McNemar's exact test of each seed
    (1947), combined on either side, so that seeds which contradict each other show nothing."""
    better, worse = (results & ~baseline).sum(1), (~results & baseline).sum(1)
    sides = (combined_p(stats.binom.cdf(few, better + worse, 0.5).tolist()) for few in (worse, better))
    return min(1.0, 2 * min(sides))


def combined_p(p_values: Sequence[float]) -> float:
    """K / k times the k-th smallest of K, which is the median, the upper one of two: a p-value however they depend on each
    other (Rüger 1978, Metrika 25:171); of a single one it is that one."""
    ordered = sorted(p_values)
    rank = len(ordered) // 2 + 1
    return min(1.0, len(ordered) / rank * ordered[rank - 1])


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for being several (Holm 1979, Scandinavian Journal of Statistics 6:65), by name."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class NoiseFloor:
    """What two runs of the same repair differ by."""

    difference: float
    """Root mean square of the difference between the scores (shares of right items) of two seeds."""
    significant: float
    """Share of A/A comparisons that McNemar's exact test calls significant at 5 %."""
    resamplings: int


def noise_floor(results: NDArray[Any]) -> NoiseFloor | None:
    """Of `results` [K, n], K tunings that differ in their seed only; None for one, which nothing can be compared with.

    An A/A comparison has n items drawn with replacement, and two arms: each takes, item by item, the answer of another tuning,
    drawn anew for each item. So the arms differ by what tunings differ by, and neither is the better one.
    """
    seeds, n = results.shape
    if seeds < 2:
        return None
    scores = results.mean(1)
    squares = [(one - other) ** 2 for one, other in itertools.combinations(scores, 2)]
    generator = np.random.default_rng(_SEED)
    significant = 0
    for _ in range(_RESAMPLINGS):
        items = generator.integers(n, size=n)
        first = generator.integers(seeds, size=n)
        second = (first + generator.integers(1, seeds, size=n)) % seeds
        significant += mcnemar(results[first, items][None], results[second, items]) <= LEVEL
    return NoiseFloor(math.sqrt(np.mean(squares)), significant / _RESAMPLINGS, _RESAMPLINGS)


def smallest_effect(n: int, discordance: float) -> float:
    """The smallest difference in the share of right items that McNemar's exact test of n pairs shows (p <= .05) with power .8.

    Args:
        discordance: share of items on which the two disagree; a difference larger than that has all of them on one side.
    """
    low, high = 0.0, 1.0
    if power(n, high, discordance) < _POWER:
        return 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if power(n, middle, discordance) < _POWER:
            low = middle
        else:
            high = middle
    return high


def power(n: int, difference: float, discordance: float) -> float:
    """Probability that McNemar's exact test of n pairs calls a difference in shares significant at 5 %.

    The number of discordant pairs is binomial, and so is which way each of them goes.
    """
    discordance = max(discordance, difference)
    if discordance == 0:
        return 0.0
    pairs = np.arange(n + 1)
    fewest = stats.binom.ppf(LEVEL / 2, pairs, 0.5)  # the smallest k with a tail of at least LEVEL / 2
    fewest -= stats.binom.cdf(fewest, pairs, 0.5) > LEVEL / 2  # so this one is significant, or -1
    one_way = (1 + difference / discordance) / 2
    rejected = stats.binom.cdf(fewest, pairs, one_way) + stats.binom.cdf(fewest, pairs, 1 - one_way)
    return float(stats.binom.pmf(pairs, n, discordance) @ rejected)

"""Half of the facts, or all facts by half? Counts in, shares out.

A repair that brings back half may bring back some facts always and others never, or each of them half of the times. Hits of an
item over seeds and phrasings tell: they are a mixture of three binomial distributions (never, sometimes, always), whose
weights are those of the largest likelihood (EM: Dempster, Laird and Rubin 1977, J. of the Royal Statistical Society B 39:1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_NEVER, _ALWAYS = 0.03, 0.97
"""How likely a hit is of what never and what always hits: nothing is without noise."""
_ROUNDS = 500


@dataclass(frozen=True)
class Shape:
    """Shares of items; they add up to 1."""

    never: float
    sometimes: float
    always: float
    likelihood: float
    """How likely a hit is of those that hit sometimes."""

    @property
    def words(self) -> str:
        return "each of them sometimes" if self.sometimes > 0.5 else "some of them always, others never"


def shape(hits: NDArray[Any], times: NDArray[Any]) -> Shape | None:
    """Of items that were hit so often [n] of so many times [n]; None where none was asked twice, which tells nothing."""
    asked = times > 0
    hits, times = hits[asked], times[asked]
    if not (times > 1).any():
        return None
    weights, likelihood = np.full(3, 1 / 3), 0.5
    for _ in range(_ROUNDS):
        of_each = stats.binom.pmf(hits[:, None], times[:, None], [_NEVER, likelihood, _ALWAYS]) * weights
        belongs = of_each / of_each.sum(1, keepdims=True)
        weights, of_some = belongs.mean(0), belongs[:, 1]
        likelihood = float(np.clip((of_some @ hits) / max(of_some @ times, 1e-12), 2 * _NEVER, 1 - 2 * _NEVER))
    never, sometimes, always = weights.tolist()
    return Shape(never, sometimes, always, likelihood)

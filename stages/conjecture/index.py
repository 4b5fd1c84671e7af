"""The displacement index: where a model stands between two whose truth is known. Boolean arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmrepair.stages.conjecture.classes import Classes, Items
from llmrepair.stages.conjecture.resampling import Estimate, Floats, Part, Resampling

FEWEST_NEVER_KNOWN = 30
"""So many items at least have to be never known for their luck rate to be worth subtracting."""


@dataclass(frozen=True)
class Recovered:
    """What a repair [K, n] answers on a damaged model that lost something."""

    items: Classes
    repaired: Items

    def parts(self) -> list[Part]:
        """The rate on lost items, and the luck rate where it is known."""
        lost, never_known = self.items.lost, self.items.never_known
        return [Part(self.repaired, lost)] + (
            [Part(self.repaired, never_known)] if never_known.sum() >= FEWEST_NEVER_KNOWN else []
        )


def net_recovery(rates: Floats) -> Floats:
    """(rate on lost - luck) / (1 - luck): 0 where a repair recovers no more than it guesses, 1 where it recovers all.

    Luck is the rate on never-known items. Where there are fewer than `FEWEST_NEVER_KNOWN` it is taken as 0: the index
    subtracts what the erased control recovers, which holds luck too. Where luck is 1 nothing can be told, which counts as 0.

    Args:
        rates: [..., 2] on lost and on never-known items; [..., 1] without the latter.
    """
    if rates.shape[-1] == 1:
        return rates[..., 0]
    rate, luck = rates[..., 0], rates[..., 1]
    return np.where(luck < 1, (rate - luck) / np.where(luck < 1, 1 - luck, 1), 0.0)


@dataclass(frozen=True)
class Index:
    """The displacement index and what it is made of."""

    index: Estimate | None
    """None where the two controls cannot be told apart."""
    separation: Estimate
    """Net recovery of the displaced control less that of the erased one: what the index is measured in."""
    net: Mapping[str, Estimate]


def displacement_index(model: Recovered, erased: Recovered, displaced: Recovered, resampling: Resampling) -> Index:
    """(net(model) - net(erased)) / (net(displaced) - net(erased)): 0 = like erased, 1 = like displaced.

    All over the same items, whose resamples they share.
    """
    of = {"model": model.parts(), "erased": erased.parts(), "displaced": displaced.parts()}
    ends = np.cumsum([len(parts) for parts in of.values()])[:-1]

    def nets(rates: Floats) -> list[Floats]:
        return [net_recovery(each) for each in np.split(rates, ends, axis=-1)]

    def span(rates: Floats) -> Floats:
        _, low, high = nets(rates)
        return high - low

    def index(rates: Floats) -> Floats:
        value, low, _ = nets(rates)
        return (value - low) / span(rates)

    every = [part for parts in of.values() for part in parts]
    separation = resampling.estimate(span, every)
    return Index(
        resampling.estimate(index, every) if separation.low > 0 else None,
        separation,
        {name: resampling.estimate(net_recovery, parts) for name, parts in of.items()},
    )

"""The displacement index: where a model stands between two whose truth is known. Boolean arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrepair.stages.statistics.fates import Classes, Items
from llmrepair.stages.statistics.resampling import Estimate, Floats, Part, Resampling

FEWEST_NEVER_KNOWN = 30
"""So many items at least have to be never known for their luck rate to be worth subtracting."""


@dataclass(frozen=True)
class Recovered:
    """What a repair [K, n] answers on a damaged model that lost something."""

    items: Classes
    repaired: Items

    @property
    def luck_is_known(self) -> bool:
        return int(self.items.never_known.sum()) >= FEWEST_NEVER_KNOWN

    def parts(self) -> list[Part]:
        """The rate on lost items, and the luck rate where it is known."""
        lost, never_known = self.items.lost, self.items.never_known
        return [Part(self.repaired, lost)] + ([Part(self.repaired, never_known)] if self.luck_is_known else [])


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


def displacement_index(model: Recovered, displaced: Recovered, erased: Recovered | None, resampling: Resampling) -> Index:
    """(net(model) - net(erased)) / (net(displaced) - net(erased)): 0 = like erased, 1 = like displaced.

    All over the same items, whose resamples they share.

    Args:
        erased: None where there is no such control: what was never known then stands for what is erased, so that its net
            recovery is 0, and luck has to be known.
    """
    of = {"model": model.parts(), "displaced": displaced.parts()} | ({"erased": erased.parts()} if erased is not None else {})
    ends = np.cumsum([len(parts) for parts in of.values()])[:-1]

    def nets(rates: Floats) -> dict[str, Any]:
        return {"erased": 0.0} | dict(zip(of, map(net_recovery, np.split(rates, ends, axis=-1)), strict=True))

    def span(rates: Floats) -> Floats:
        found: Floats = nets(rates)["displaced"] - nets(rates)["erased"]
        return found

    def index(rates: Floats) -> Floats:
        found: Floats = (nets(rates)["model"] - nets(rates)["erased"]) / span(rates)
        return found

    every = [part for parts in of.values() for part in parts]
    separation = resampling.estimate(span, every)
    return Index(
        resampling.estimate(index, every) if separation.low > 0 else None,
        separation,
        {name: resampling.estimate(net_recovery, parts) for name, parts in of.items()},
    )

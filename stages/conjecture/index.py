"""The displacement index: where a model stands between two whose truth is known. Boolean arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrepair.stages.conjecture.classes import Classes, Items
from llmrepair.stages.conjecture.resampling import Draws, Estimate, Resampling, estimate

FEWEST_NEVER_KNOWN = 30
"""So many items at least have to be never known for their luck rate to be worth subtracting."""


@dataclass(frozen=True)
class Recovered:
    """What a repair [K, n] answers on a damaged model."""

    items: Classes
    repaired: Items


@dataclass(frozen=True)
class Net:
    """A recovery rate less luck."""

    value: float
    draws: Draws


def net_recovery(of: Recovered, resampling: Resampling) -> Net:
    """(rate on lost - luck) / (1 - luck): 0 where a repair recovers no more than it guesses, 1 where it recovers all.

    Luck is the rate on never-known items. Where there are fewer than `FEWEST_NEVER_KNOWN` it is taken as 0: the index
    subtracts what the erased control recovers, which holds luck too. Needs lost items.
    """
    rate, draws = float(of.repaired[:, of.items.lost].mean()), resampling.rate(of.repaired, of.items.lost)
    if of.items.never_known.sum() < FEWEST_NEVER_KNOWN:
        return Net(rate, draws)
    luck = float(of.repaired[:, of.items.never_known].mean())
    if luck == 1:  # nothing can be told from luck
        return Net(0.0, np.zeros_like(draws))
    lucky = resampling.rate(of.repaired, of.items.never_known)
    lucky = np.minimum(lucky, 1 - 1e-6)  # a draw can be 1
    return Net((rate - luck) / (1 - luck), (draws - lucky) / (1 - lucky))


@dataclass(frozen=True)
class Index:
    """The displacement index and what it is made of."""

    index: Estimate | None
    """None where the two controls cannot be told apart."""
    separation: Estimate
    """Net recovery of the displaced control less that of the erased one: what the index is measured in."""
    net: dict[str, Estimate]


def displacement_index(model: Recovered, erased: Recovered, displaced: Recovered, resampling: Resampling) -> Index:
    """(net(model) - net(erased)) / (net(displaced) - net(erased)): 0 = like erased, 1 = like displaced.

    All over the same items, whose resamples they share; each needs lost items.
    """
    nets = {name: net_recovery(of, resampling) for name, of in (("model", model), ("erased", erased), ("displaced", displaced))}
    span, span_draws = nets["displaced"].value - nets["erased"].value, nets["displaced"].draws - nets["erased"].draws
    separation = estimate(span, span_draws)
    index = None
    if separation.low > 0:
        rise, rise_draws = nets["model"].value - nets["erased"].value, nets["model"].draws - nets["erased"].draws
        index = estimate(rise / span, rise_draws / span_draws)
    return Index(index, separation, {name: estimate(net.value, net.draws) for name, net in nets.items()})

"""Everything that is said of a task whose answers are right or wrong. Boolean arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.conjecture.roles import DAMAGED, Arms
from llmrepair.stages.statistics.fates import (
    Agreement,
    Classes,
    Items,
    Rates,
    agreement,
    classes,
    fates,
    rates,
    shares,
)
from llmrepair.stages.statistics.index import Index, Recovered, displacement_index
from llmrepair.stages.statistics.paired import Difference, paired_difference
from llmrepair.stages.statistics.resampling import Estimate, Part, Resampling
from llmrepair.stages.statistics.significance import NoiseFloor, mcnemar, noise_floor, smallest_effect

_LEAST_COMMON = 0.5
"""Share of what a model lost that its controls have to have lost too, for it to be compared with them."""


@dataclass(frozen=True)
class Results:
    """What a damaged model makes of n items: as it is [n], and behind each repair [K, n] of K seeds.

    Whether each is answered right, or what each costs.
    """

    alone: NDArray[Any]
    repaired: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Test:
    """Whether a repair changes anything, and how small a change could be seen."""

    difference: Difference
    """In the share of right items, over items and seeds."""
    p_value: float
    """McNemar's exact test."""
    discordance: float
    """Share of items on which the repaired model and the one without a repair disagree."""
    smallest_effect: float
    noise_floor: NoiseFloor | None


@dataclass(frozen=True)
class Readings:
    """Which of n items a linear probe reads off the damaged model's hidden states [n], and what one reads of them that cannot
    know them: the probe of the erased control [n], or how likely a guess is right [n]."""

    probe: Items
    floor: NDArray[Any]


@dataclass(frozen=True)
class Readable:
    """Share of the lost items that a probe reads and no prompt brings back."""

    probe: Estimate
    floor: Estimate
    """What would be read there if nothing was left of them."""


@dataclass(frozen=True)
class Untuned:
    """What the prompt brings back before it has learned anything: answers at the edge, which any change tips over."""

    recovery: Estimate
    """Share of the lost items."""
    tuning_adds: Estimate
    """Share that the tuned prompt brings back, less that."""


@dataclass(frozen=True)
class Found:
    """Of one damaged model on one task."""

    items: Classes
    rates: Mapping[str, Rates]
    shares: Mapping[str, Estimate] | None
    agreement: Agreement | None
    common: int
    """Lost items that the model under test lost too."""

    @property
    def lost(self) -> int:
        return int(self.items.lost.sum())


def find(dense: Items, answers: Results, tested: Results, arms: Arms, resampling: Resampling) -> Found:
    """Classes, rates and fates.

    Args:
        dense: [n], the dense model's answers.
        tested: of the model under test.
    """
    items, repaired = classes(dense, answers.alone), answers.repaired
    reached, relearned = repaired[arms.displaced], repaired[arms.latent]
    return Found(
        items,
        {name: rates(items, of, resampling) for name, of in repaired.items()},
        shares(items, reached, relearned, resampling),
        agreement(items.lost, reached, relearned),
        int((items.lost & ~tested.alone).sum()),
    )


def readable(dense: Items, answers: Results, readings: Readings, arms: Arms, resampling: Resampling) -> Readable | None:
    """None where nothing was lost."""
    lost, unreached = classes(dense, answers.alone).lost, ~answers.repaired[arms.displaced]
    probe, floor = (resampling.rate(Part(unreached * read, lost)) for read in (readings.probe, readings.floor))
    return Readable(probe, floor) if probe is not None and floor is not None else None


def untuned(dense: Items, answers: Results, arms: Arms, resampling: Resampling) -> Untuned | None:
    """None where nothing was lost."""
    lost = classes(dense, answers.alone).lost
    before, after = (Part(answers.repaired[name], lost) for name in (arms.edge, arms.displaced))
    recovery = resampling.rate(before)
    if recovery is None:
        return None
    return Untuned(recovery, resampling.estimate(lambda rates: rates[..., 0] - rates[..., 1], [after, before]))


def index_of(
    dense: Items, answers: Mapping[str, Results], anchors: Mapping[str, str], arms: Arms, resampling: Resampling
) -> Index | None:
    """The displacement index of the model under test between two controls, on the items that all of them lost.

    None where it cannot be told: a control is missing, or fewer than half of what the model lost was lost by the controls too.
    Of what was never told, what was never known takes the place, if luck is known.

    Args:
        anchors: `forgotten` and `displaced` -> the control that marks this end.
    """
    compared = {name: answers[name] for name in (DAMAGED, anchors["displaced"], anchors["forgotten"]) if name in answers}
    lost = {name: classes(dense, of.alone).lost for name, of in compared.items()}
    common = np.logical_and.reduce(list(lost.values()))
    if not common.any() or common.sum() < _LEAST_COMMON * lost[DAMAGED].sum():
        return None
    found = {
        name: Recovered(replace(classes(dense, of.alone), lost=common), of.repaired[arms.displaced])
        for name, of in compared.items()
    }
    model, displaced, erased = (found.get(name) for name in (DAMAGED, anchors["displaced"], anchors["forgotten"]))
    if model is None or displaced is None:
        return None
    if erased is None and not (model.luck_is_known and displaced.luck_is_known):
        return None
    return displacement_index(model, displaced, erased, resampling)


def tests(answers: Results, arms: Arms) -> dict[str, Test]:
    """Each repair against the model without one; but for bounds, which have seen the answers."""
    return {name: _test(answers.alone, repaired) for name, repaired in answers.repaired.items() if name not in arms.bounds}


def _test(alone: Items, repaired: Items) -> Test:
    discordance = float((repaired != alone).mean())
    return Test(
        paired_difference(repaired, alone),
        mcnemar(repaired, alone),
        discordance,
        smallest_effect(len(alone), discordance),
        noise_floor(repaired),
    )


def item_fates(answers: Results, arms: Arms) -> list[list[str]]:
    """For each item, what it would be if it was lost: of each seed."""
    found = fates(answers.repaired[arms.displaced], answers.repaired[arms.latent])
    names = np.select(list(found.values()), list(found), "")  # [K, n]
    return [[str(name) for name in of_seeds] for of_seeds in names.T]

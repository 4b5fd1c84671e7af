"""What became of each item, and what a repair does to it. Boolean arrays over the same n items in, numbers out.

Of K tuning seeds every share is the mean, so it is that of one tuning and does not grow with K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmrepair.stages.statistics.resampling import Estimate, Part, Resampling
from llmrepair.stages.statistics.significance import combined_p

Items = NDArray[np.bool_]
"""[n], or [K, n] of K seeds."""


@dataclass(frozen=True)
class Classes:
    """Which of n items are what: each is exactly one of these."""

    lost: Items
    """Right before, wrong after."""
    kept: Items
    never_known: Items
    """Wrong before and after: what a repair gets right there is learning and luck."""
    gained: Items
    """Wrong before, right after: luck too."""

    def names(self) -> list[str]:
        """The class of each item."""
        named = [(name, getattr(self, name)) for name in ("lost", "kept", "never_known", "gained")]
        return [str(name) for name in np.select([mask for _, mask in named], [name for name, _ in named], "")]

    def counts(self) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in vars(self).items()}


def classes(dense: Items, damaged: Items) -> Classes:
    """Of the answers [n] of a model before and after something was done to it."""
    return Classes(lost=dense & ~damaged, kept=dense & damaged, never_known=~dense & ~damaged, gained=~dense & damaged)


@dataclass(frozen=True)
class Rates:
    """What a repair does to the items of each class; None where a class is empty."""

    recovery: Estimate | None
    """Share of the lost that is right again."""
    regression: Estimate | None
    """Share of the kept that it breaks."""
    luck: Estimate | None
    """Share of the never known that it gets right."""


def rates(items: Classes, repaired: Items, resampling: Resampling) -> Rates:
    """Of the answers [K, n] of a repair."""
    return Rates(
        recovery=resampling.rate(Part(repaired, items.lost)),
        regression=resampling.rate(Part(~repaired, items.kept)),
        luck=resampling.rate(Part(repaired, items.never_known)),
    )


def fates(prompt: Items, lora: Items) -> dict[str, Items]:
    """What a lost item is, by the answers [K, n] of both repairs of the same seeds: each is exactly one of these.

    Displaced: a prompt reaches it. Latent: no prompt does, but a change of weights tuned on other facts. Erased: neither.
    """
    return {"displaced": prompt, "latent": ~prompt & lora, "erased": ~prompt & ~lora}


def shares(items: Classes, prompt: Items, lora: Items, resampling: Resampling) -> dict[str, Estimate] | None:
    """The share of each fate in the lost items; None where nothing was lost."""
    found = {name: resampling.rate(Part(mask, items.lost)) for name, mask in fates(prompt, lora).items()}
    return {name: share for name, share in found.items() if share is not None} or None


@dataclass(frozen=True)
class Agreement:
    """How far two repairs recover the same items."""

    jaccard: float
    """Recovered by both, of those recovered by either."""
    by_chance: float
    """What it would be if each recovered as many, but at random."""
    p_value: float
    """Of an overlap as large by chance: the hypergeometric tail, which is Fisher's exact test."""


def agreement(lost: Items, first: Items, second: Items) -> Agreement | None:
    """Of the answers [K, n] of two repairs of the same seeds, among the lost items [n]; None where either recovers nothing.

    The mean over seeds, with their combined p-value.
    """
    of_seeds = [_agreement(one[lost], other[lost]) for one, other in zip(first, second, strict=True)]
    found = [each for each in of_seeds if each is not None]
    if not found:
        return None
    return Agreement(
        jaccard=float(np.mean([each.jaccard for each in found])),
        by_chance=float(np.mean([each.by_chance for each in found])),
        p_value=combined_p([each.p_value for each in found]),
    )


def _agreement(first: Items, second: Items) -> Agreement | None:
    ones, others, both = int(first.sum()), int(second.sum()), int((first & second).sum())
    if not ones or not others:
        return None
    overlaps = np.arange(max(0, ones + others - len(first)), min(ones, others) + 1)
    chances = stats.hypergeom(len(first), ones, others)
    by_chance = float((chances.pmf(overlaps) * overlaps / (ones + others - overlaps)).sum())
    return Agreement(both / (ones + others - both), by_chance, float(chances.sf(both - 1)))

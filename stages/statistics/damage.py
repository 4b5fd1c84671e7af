"""What a repair undoes where no answer is right or wrong: from the losses of running texts. Arrays in, numbers out.

A loss is a text's negative log-likelihood in nats. Damage is what compression adds to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmrepair.stages.statistics.resampling import Estimate, Floats, Part, Resampling


@dataclass(frozen=True)
class Damage:
    """Of one damaged model on n texts."""

    nats: Estimate
    """Loss of the damaged model less that of the dense one, for the mean text."""
    undone: Mapping[str, Estimate | None]
    """The share of it that each repair undoes: 1 where all is as before, below 0 where it makes it worse."""


def damage(dense: Floats, alone: Floats, repaired: Mapping[str, Floats], resampling: Resampling) -> Damage:
    """(loss damaged - loss repaired) / (loss damaged - loss dense), of losses added up over all texts.

    The share is None where the interval of the damage itself reaches 0, for nothing can be said of a share of nothing; and of a
    single text, which has no interval.

    Args:
        dense: [n] losses.
        alone: [n] of the damaged model as it is.
        repaired: [K, n] behind each repair, tuned with K seeds.
    """
    everything = np.ones(len(dense), dtype=bool)
    nats = resampling.estimate(lambda means: means[..., 0], [Part((alone - dense)[None], everything)])

    def share(losses: Floats) -> Estimate:
        parts = [Part(alone - losses, everything), Part(np.broadcast_to(alone - dense, losses.shape), everything)]
        return resampling.estimate(lambda means: means[..., 0] / means[..., 1], parts)

    can_be_divided = len(dense) > 1 and nats.low > 0
    return Damage(nats, {name: share(losses) if can_be_divided else None for name, losses in repaired.items()})

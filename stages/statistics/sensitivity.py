"""Shares of fates as they are, of what tests with a known sensitivity find. Numbers in, numbers out.

LoRA reaches but a part of what is latent by construction, and a little of what is erased. What it reaches among the lost that
a prompt does not reach is an apparent prevalence; the true one is Rogan and Gladen's (1978, American Journal of Epidemiology
107:71):

    latent = (q - q_erased) / (q_overwritten - q_erased),   q = P(LoRA right | prompt wrong, lost)
    erased = (1 - displaced) (1 - latent)

The displaced share is the same estimator, with the two ends that the displacement index has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.fates import Items
from llmrepair.stages.statistics.resampling import Floats
from llmrepair.stages.statistics.subjects import Drawn, Share, Subjects

LEAST_SPAN = 0.3
"""Two controls that are nearer to each other identify nothing."""


@dataclass(frozen=True)
class Reached:
    """What two repairs reach of what a model robustly lost."""

    lost: Items
    """[J, P, n]."""
    prompt: Items
    """[K, P, n] of K seeds."""
    lora: Items


@dataclass(frozen=True)
class TrueShares:
    """Shares of the robustly lost; None where they are not identified."""

    latent: Drawn | None
    """Of those that no prompt reaches."""
    erased: Drawn | None


NOT_IDENTIFIED = TrueShares(None, None)


def true_shares(
    model: Reached, erased: Reached, overwritten: Reached, displaced: Drawn | None, subjects: Subjects
) -> TrueShares:
    """Of what all three robustly lost. Not identified where a prompt reaches all of it, or LoRA reaches hardly more of what is
    latent (overwritten) than of what is erased.

    Args:
        displaced: share of the lost, such as a displacement index; None where it is not known.
    """
    common = np.logical_and.reduce([each.lost for each in (model, erased, overwritten)])
    parts = [_apparent(each, common) for each in (model, erased, overwritten)]
    if not all(part.among.sum(-1).all() for part in parts):
        return NOT_IDENTIFIED
    span = subjects.draw(lambda shares, _: shares[..., 2] - shares[..., 1], parts)
    if span.value < LEAST_SPAN:
        return NOT_IDENTIFIED
    latent = subjects.draw(lambda shares, _: prevalence(*np.moveaxis(shares, -1, 0)), parts)
    if displaced is None:
        return TrueShares(latent, None)
    return TrueShares(latent, _erased(displaced, latent))


def _apparent(reached: Reached, common: NDArray[np.bool_]) -> Share:
    """What LoRA gets right of that which a prompt does not."""
    unreached = common.mean(0) * ~reached.prompt  # [K, P, n]
    return Share((unreached * reached.lora).mean(1), unreached.mean(1))


def _erased(displaced: Drawn, latent: Drawn) -> Drawn:
    value, draws = (
        (1 - np.clip(reached, 0, 1)) * (1 - np.clip(of_others, 0, 1))
        for reached, of_others in ((displaced.value, latent.value), (displaced.draws, latent.draws))
    )
    return Drawn(float(value), draws)


def prevalence(apparent: Floats, of_none: Floats, of_all: Floats) -> Floats:
    """Rogan and Gladen's estimator, clipped to [0, 1].

    Args:
        apparent: share that a test finds.
        of_none, of_all: what it finds where none is there and where all are: 1 - specificity, and sensitivity. Where the first
            is no smaller, as in a few resamples, nothing is known: a half.
    """
    span = of_all - of_none
    return np.where(span > 0, np.clip((apparent - of_none) / np.where(span > 0, span, 1), 0, 1), 0.5)

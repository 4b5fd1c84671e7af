"""What a repair brings back and breaks, held against placebos. Boolean arrays in, numbers out.

A placebo is an equally strong push that knows nothing: what it brings back was at the edge. Of several phrasings, seeds and
placebos every number is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.resampling import Estimate, Floats
from llmrepair.stages.statistics.robust import Answers, RobustClasses
from llmrepair.stages.statistics.subjects import Drawn, Share, Subjects


@dataclass(frozen=True)
class Flow:
    """How many items something changes."""

    regained: float
    """Of those that one measurement calls lost."""
    broken: float
    """Of those that it calls kept."""
    gained: float
    """Of those that neither the dense model nor the damaged one answers."""
    net: Estimate
    """(regained - broken) / lost."""


@dataclass(frozen=True)
class Flows:
    lost: float
    """Items that one measurement calls lost."""
    repair: Flow
    placebos: Flow
    difference: Estimate
    """Net flow of the repair less that of the placebos."""
    equivalence_p: float
    """p-value that it is as large as a margin, on either side."""


def flows(answers: Answers, subjects: Subjects, margin: float) -> Flows | None:
    """F = (lost -> right minus kept -> wrong) / lost, of a repair, of its placebos, and of one less the other.

    None where no measurement calls an item lost.

    Args:
        margin: a smaller difference counts as none.
    """
    if not answers.called_lost.any():
        return None
    placebos = answers.placebos.mean(0)[None]
    both = [*_lost_and_kept(answers, answers.repaired), *_lost_and_kept(answers, placebos)]
    difference = subjects.draw(lambda shares, totals: _net(shares, totals) - _net(shares[..., 2:], totals), both)
    return Flows(
        float(answers.called_lost.sum(1).mean()),
        _flow(answers, answers.repaired, subjects),
        _flow(answers, placebos, subjects),
        difference.estimate,
        difference.equivalence_p(margin),
    )


def _flow(answers: Answers, right: NDArray[Any], subjects: Subjects) -> Flow:
    def items(change: NDArray[Any]) -> float:
        return float(change.sum(-1).mean())

    return Flow(
        regained=items(answers.called_lost * right),
        broken=items(answers.called_kept * (1 - right)),
        gained=items((~answers.dense & ~answers.alone) * right),
        net=subjects.draw(_net, _lost_and_kept(answers, right)).estimate,
    )


def _lost_and_kept(answers: Answers, right: NDArray[Any]) -> list[Share]:
    """What is right of the lost, and wrong of the kept; by answers [K, P, n], or shares of them."""
    lost, kept = answers.called_lost, answers.called_kept
    return [Share((lost * right).mean(1), lost.mean(0)), Share((kept * (1 - right)).mean(1), kept.mean(0))]


def _net(shares: Floats, totals: Floats) -> Floats:
    net: Floats = shares[..., 0] - shares[..., 1] * totals[..., 1] / totals[..., 0]
    return net


@dataclass(frozen=True)
class Recovery:
    """What comes back of the items that are robustly lost."""

    lost: float
    """Items robustly lost."""
    repair: Estimate
    """rho, the share of them that the repair gets right."""
    placebos: Estimate
    corrected: Estimate
    """(rho - mean rho of the placebos) / (1 - mean rho of the placebos)."""


def recovery(answers: Answers, classes: RobustClasses, subjects: Subjects) -> Recovery | None:
    """None where nothing is robustly lost."""
    if not classes.lost.any():
        return None
    parts = _repair_and_placebos(answers, classes.lost)
    repair, placebos = (subjects.draw(lambda shares, _: shares[..., 0], [part]).estimate for part in parts)
    corrected = subjects.draw(lambda shares, _: _corrected(shares), parts).estimate
    return Recovery(float(classes.lost.mean((0, 1)).sum()), repair, placebos, corrected)


def _repair_and_placebos(answers: Answers, lost: NDArray[np.bool_]) -> list[Share]:
    """Of the lost [J, P, n]; a placebo's share is of those that were found without it."""
    among = lost.mean((0, 1))
    repair = (lost.mean(0) * answers.repaired).mean(1)
    return [Share(repair, among), Share((lost * answers.placebos).mean((0, 1))[None], among)]


def _corrected(shares: Floats) -> Floats:
    repair, placebos = shares[..., 0], shares[..., 1]
    return np.where(placebos < 1, (repair - placebos) / np.where(placebos < 1, 1 - placebos, 1), 0.0)


@dataclass(frozen=True)
class Measured:
    """A model on the same items as others."""

    answers: Answers
    classes: RobustClasses


@dataclass(frozen=True)
class CorrectedIndex:
    index: Drawn | None
    """None where the two controls cannot be told apart."""
    separation: Estimate
    """What the displaced control recovers more than the erased one: what the index is measured in."""
    common: float
    """Items that all of them lost robustly."""


def corrected_index(model: Measured, displaced: Measured, erased: Measured | None, subjects: Subjects) -> CorrectedIndex | None:
    """(corrected recovery of the model - of the erased control) / (of the displaced control - of the erased one), each behind
    its own placebos: 0 = like erased, 1 = like displaced.

    All on the items that all of them lost robustly; None where there are none. Of a model without an erased control what is
    erased recovers 0, for placebos are already subtracted.
    """
    compared = [model, displaced] + ([erased] if erased is not None else [])
    common = np.logical_and.reduce([each.classes.lost for each in compared])
    if not common.any():
        return None
    parts = [part for each in compared for part in _repair_and_placebos(each.answers, common)]

    def span(shares: Floats, _: Floats) -> Floats:
        found: Floats = _corrected(shares[..., 2:]) - (_corrected(shares[..., 4:]) if erased is not None else 0)
        return found

    def index(shares: Floats, totals: Floats) -> Floats:
        of_erased = _corrected(shares[..., 4:]) if erased is not None else 0
        found: Floats = (_corrected(shares) - of_erased) / span(shares, totals)
        return found

    separation = subjects.draw(span, parts).estimate
    found = subjects.draw(index, parts) if separation.low > 0 else None
    return CorrectedIndex(found, separation, float(common.mean((0, 1)).sum()))

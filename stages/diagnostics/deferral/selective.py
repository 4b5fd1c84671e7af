"""How well a confidence tells right answers from wrong ones, and what handing the least sure ones on brings. Arrays in,
numbers out.

Items are answered from the surest one on. Of those answered so far, W is their weight and E that of the wrong ones; in all
they are W_n and E_n. Risk is E / W at a coverage of W / W_n.

    AURC    sum w E / W, over W_n: the mean risk over coverages (Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206). Of equal
            weights (1 / n) sum_i e_i (H_n - H_(i-1)), H being harmonic numbers.
    E-AURC  AURC less that of the same answers in perfect order, of many items r + (1 - r) ln(1 - r) of a share r of wrong ones
    AUGRC   integral of E / W_n over coverages: how likely an answer is given, and wrong (Traub et al. 2024, arXiv 2407.01032)
    ECE     mean distance between a probability and the share that is right, over bins of as many items each (Nixon et al. 2019,
            arXiv 1904.01685)

In a cascade a second model takes over the least sure items. Each gains 1, 0 or -1. A is the area under the accuracy against
the share that is taken over, and skill (A - A_random) / (A_perfect - A_random): 1 takes over the gains first and the losses
last, 0 is any order.

Items that are equally sure come in any order, so each of them counts as their mean.

Shapes: n items, R resamples; weights are [R, n].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

COVERAGE = 0.8
"""At which accuracy is told."""
BINS = 10
CLOSE = 0.01
"""As near as this to the second model's accuracy a cascade is as good."""
_LEAST = 1e-12
"""Of a weight, so that what has been answered is never nothing."""


class Order:
    """Items by their confidence, the surest first."""

    def __init__(self, confidence: NDArray[Any]):
        self.items = np.argsort(-confidence, kind="stable")
        self.steps = np.diff(confidence[self.items]) != 0
        self.starts = np.concatenate([[0], 1 + np.flatnonzero(self.steps)])
        """Where each stretch of equally sure items begins."""

    @property
    def sizes(self) -> NDArray[Any]:
        return np.diff([*self.starts, len(self.items)])

    def weights(self, weights: Floats) -> Floats:
        ordered: Floats = np.maximum(weights[:, self.items], _LEAST, dtype=np.float64)
        return ordered

    def amounts(self, weights: Floats, values: NDArray[Any]) -> Floats:
        """Weight times value [R, n], spread evenly over what is equally sure."""
        ordered = self.weights(weights)
        if len(self.starts) == len(self.items):
            return ordered * values[self.items]
        means = np.add.reduceat(ordered * values[self.items], self.starts, 1) / np.add.reduceat(ordered, self.starts, 1)
        return ordered * np.repeat(means, self.sizes, axis=1)


def aurc(order: Order, wrong: NDArray[Any], weights: Floats) -> Floats:
    """[R], of which items are answered wrong [n]."""
    each = order.weights(weights)
    risks = order.amounts(weights, wrong).cumsum(1) / each.cumsum(1)
    return _mean(risks, each)


def best_aurc(confidence: NDArray[Any], wrong: NDArray[Any], weights: Floats) -> Floats:
    """[R], with all right answers before all wrong ones, and else in the same order."""
    ranks = np.unique(confidence, return_inverse=True)[1]
    return aurc(Order(ranks - len(wrong) * wrong), wrong, weights)


def augrc(order: Order, wrong: NDArray[Any], weights: Floats) -> Floats:
    return _area(order, wrong, weights)


def accuracy_at(order: Order, wrong: NDArray[Any], weights: Floats, coverage: float = COVERAGE) -> Floats:
    """Share of right answers [R] among the surest ones of that coverage; the last of them may count in part."""
    each, amounts = order.weights(weights), order.amounts(weights, wrong)
    room = coverage * each.sum(1, keepdims=True) - (each.cumsum(1) - each)
    answered = np.clip(room / each, 0, 1)
    accuracy: Floats = 1 - (answered * amounts).sum(1) / (coverage * each.sum(1))
    return accuracy


def calibration_error(probability: Floats, right: NDArray[Any], weights: Floats) -> Floats:
    """ECE [R] of how likely each answer is right, as the model has it [n]."""
    order = Order(probability)
    each = order.weights(weights)
    starts = np.unique(np.arange(BINS) * len(right) // BINS)
    gaps = np.add.reduceat(each * (probability - right)[order.items], starts, axis=1)
    error: Floats = np.abs(gaps).sum(1) / each.sum(1)
    return error


def separation(order: Order, sure: NDArray[Any], unsure: NDArray[Any], weights: Floats) -> Floats:
    """How often one of the items `sure` [n] is surer than one of the `unsure` [n]: the area under the ROC curve [R]."""
    ours, theirs = (weights[:, order.items] * mask[order.items] for mask in (sure, unsure))
    ours, theirs = (np.add.reduceat(each, order.starts, 1, dtype=np.float64) for each in (ours, theirs))
    below = theirs.sum(1, keepdims=True) - theirs.cumsum(1) + theirs / 2
    area: Floats = (ours * below).sum(1) / (ours.sum(1) * theirs.sum(1))
    return area


def skill(confidence: NDArray[Any], gains: NDArray[Any], weights: Floats) -> Floats:
    """[R], of what each item gains if the second model answers it [n]; not of a cascade in which all gain alike."""
    at_random = _mean(gains[None], weights) / 2
    area, best = (_area(Order(-each), gains, weights) - at_random for each in (confidence, -gains))
    return area / best


def share_needed(confidence: NDArray[Any], gains: NDArray[Any], weights: Floats) -> Floats:
    """The least share [R] that the second model has to answer for the cascade to come as near as `CLOSE` to its accuracy."""
    order = Order(-confidence)
    each, amounts = order.weights(weights), order.amounts(weights, gains)
    total = each.sum(1, keepdims=True)
    missing = (amounts.sum(1, keepdims=True) - amounts.cumsum(1)) / total
    missing = np.concatenate([_mean(gains[None], weights)[:, None], missing], axis=1)
    shares = np.concatenate([np.zeros_like(total), each.cumsum(1) / total], axis=1)
    first = (missing <= CLOSE + 1e-9).argmax(1)
    found: Floats = np.take_along_axis(shares, first[:, None], 1)[:, 0]
    return found


def _area(order: Order, values: NDArray[Any], weights: Floats) -> Floats:
    """Integral of the values gathered so far, over the share of items gathered [R]; both end at their mean, and at 1."""
    each, amounts = order.weights(weights), order.amounts(weights, values)
    total = each.sum(1)
    area: Floats = (each * (amounts.cumsum(1) - amounts / 2)).sum(1) / total**2
    return area


def _mean(values: Floats, weights: Floats) -> Floats:
    mean: Floats = (weights * values).sum(1, dtype=np.float64) / weights.sum(1, dtype=np.float64)
    return mean


def risks(order: Order, wrong: NDArray[Any]) -> Floats:
    """Risk of the surest item, of the two surest, up to all of them [n]."""
    found: Floats = order.amounts(np.ones((1, len(wrong))), wrong)[0].cumsum() / np.arange(1, len(wrong) + 1)
    return found


def cascade(confidence: NDArray[Any], right: NDArray[Any], gains: NDArray[Any]) -> Floats:
    """Accuracy where the second model answers none of the items, the least sure, the two least sure, up to all [n + 1]."""
    gathered = Order(-confidence).amounts(np.ones((1, len(right))), gains)[0].cumsum()
    found: Floats = right.mean() + np.concatenate([[0.0], gathered]) / len(right)
    return found

"""Lambda: how much of the damage to robustly lost facts a repair undoes that is about these facts. Arrays in, numbers out.

A repair may sharpen all answers, or make some of them likelier whatever is asked; then lost items turn right, and nothing of
them came back. What it does to the *wrong* candidates tells both. So

    s(w | T) = alpha_ip + beta_w + kappa * mean_j s(w | P_j)

is fitted on the wrong candidates w of items i in phrasings p: s is a candidate's log-likelihood, P_j are placebos, and beta_w
is how likely T makes an answer wherever it is wrong, taken from items of other subjects. Then

    e_i(T) = what is left of the gold candidate's s(g | T)

and the same of each placebo, and of the dense model. With sums over the robustly lost,

    Lambda_T = sum [e_i(T) - mean_j e_i(P_j)] / sum [e_i(dense) - mean_j e_i(P_j)]

is 0 where nothing about these facts came back, and 1 where all did.

Each placebo P_j is held against the mean of the others, and so are, for this comparison, the repair and the dense model, on
the items that were found lost without P_j: what all of them are regressed on has the same noise then, and it cancels. How
large that noise is the placebos' own spread tells, and kappa is corrected for it (errors in variables: Fuller 1987,
Measurement Error Models, section 1.2), or sharpening would be underestimated.

Both effects are removed by within transformations (Frisch and Waugh 1933, Econometrica 1:387). That wrong candidates tell
which trend right ones would follow is a difference in differences (Angrist and Pischke 2009, Mostly Harmless Econometrics).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.resampling import Estimate, Floats
from llmrepair.stages.statistics.subjects import Drawn, Subjects, stretch

_LEAST_RELIABLE = 0.5
"""Share of what placebos differ by from item to item that is held to be no error, at least."""


@dataclass(frozen=True)
class Candidates:
    """Log-likelihoods of W candidates for n items in P phrasings; NaN where an item has fewer."""

    dense: Floats
    """[P, n, W]."""
    placebos: Floats
    """[J, P, n, W], of J > 1."""
    repaired: Floats
    """[K, P, n, W]."""
    names: NDArray[np.integer[Any]]
    """[n, W]: which candidate it is; the same number stands for the same answer to the same kind of question."""
    gold: NDArray[np.integer[Any]]
    """[n]: which one is right."""


@dataclass(frozen=True)
class FactDamage:
    undone: Estimate | None
    """Lambda; None where it is not clear that there is damage."""
    damage: Estimate
    """e(dense) - mean_j e(P_j), in nats, of the mean lost item."""
    sharpening: float
    """kappa of the repair: 1 where it leaves the wrong candidates as placebos do."""


def fact_damage(candidates: Candidates, lost: NDArray[np.bool_], subjects: Subjects) -> FactDamage | None:
    """Lambda of the lost [J, P, n]; None where nothing is."""
    if not lost.any():
        return None
    fit = _Fit(candidates, subjects)
    sums = np.sum([fit.left_over(number, of_one) for number, of_one in enumerate(lost)], axis=0)
    *undone, damage = sums[:-1] - sums[-1]
    of_items = stretch(subjects.count(lost.sum((0, 1))))
    asked = fit.weights @ lost.sum((0, 1), dtype=float)
    nats = _drawn(np.stack([damage / asked]), subjects, of_items).estimate
    share = _drawn(np.stack(undone) / damage, subjects, of_items).estimate if nats.low > 0 else None
    return FactDamage(share, nats, fit.sharpening())


def _drawn(numbers: Floats, subjects: Subjects, of_items: float) -> Drawn:
    """Of numbers [K, 1 + R], the first of which is of the items as they are."""
    return subjects.of_seeds(numbers[:, 0], numbers[:, 1:], of_items)


class _Fit:
    """The regressions on wrong candidates, of the items as they are and of all resamples at once."""

    def __init__(self, candidates: Candidates, subjects: Subjects):
        n, width = candidates.names.shape
        self.weights = np.vstack([np.ones((1, n)), subjects.weights])  # [1 + R, n]
        self._is_wrong = ~np.isnan(candidates.dense) & (np.arange(width) != candidates.gold[:, None])  # [P, n, W]
        self._gold = candidates.gold[:, None]
        effects = Effects(self._is_wrong, candidates.names, subjects.numbers)
        self._placebos = np.stack([effects.removed(each) for each in candidates.placebos])
        self._others = [effects.removed(each) for each in (*candidates.repaired, candidates.dense)]
        spread = self._placebos.var(0, ddof=1) / (len(self._placebos) - 1)
        self._noise = self.weights @ self._over_wrong(spread)
        """[1 + R]: sum of squares of the error of a mean of all placebos but one."""

    def left_over(self, number: int, lost: NDArray[np.bool_]) -> Floats:
        """Sums over the lost [P, n] of what is left of the gold candidate, behind each tuning, of the dense model, and behind
        the placebo of a number: [K + 2, 1 + R]."""
        regressor = self._mean_without(number)
        of_regressor = self._of_gold(regressor, lost)
        compared = (*self._others, self._placebos[number])
        return np.stack([self._of_gold(each, lost) - self._kappa(each, regressor) * of_regressor for each in compared])

    def sharpening(self) -> float:
        regressors = [self._mean_without(number) for number in range(len(self._placebos))]
        return float(np.mean([self._kappa(each, of)[0] for each in self._others[:-1] for of in regressors]))

    def _mean_without(self, number: int) -> Floats:
        mean: Floats = np.delete(self._placebos, number, axis=0).mean(0)
        return mean

    def _kappa(self, scores: Floats, regressor: Floats) -> Floats:
        squares = self.weights @ self._over_wrong(regressor**2)
        squares = np.maximum(squares - self._noise, squares * _LEAST_RELIABLE)
        kappa: Floats = (self.weights @ self._over_wrong(regressor * scores)) / np.where(squares > 0, squares, 1)
        return kappa

    def _over_wrong(self, values: Floats) -> Floats:
        sums: Floats = np.where(self._is_wrong, values, 0.0).sum((0, 2))
        return sums

    def _of_gold(self, scores: Floats, lost: NDArray[np.bool_]) -> Floats:
        golds = np.take_along_axis(scores, np.broadcast_to(self._gold, (*lost.shape, 1)), 2)[..., 0]
        sums: Floats = self.weights @ np.where(lost, golds, 0.0).sum(0)
        return sums


class Effects:
    """What log-likelihoods owe to the item and phrasing, and to the candidate whatever is asked."""

    def __init__(self, is_wrong: NDArray[np.bool_], names: NDArray[Any], subjects: NDArray[Any]):
        """Of candidates [P, n, W] called `names` [n, W], and items of `subjects` [n]."""
        self._is_wrong, self._groups = is_wrong, np.unique(names, return_inverse=True)[1].reshape(names.shape)
        own = subjects[:, None] * (self._groups.max() + 1) + self._groups
        self._own_groups = np.unique(own, return_inverse=True)[1].reshape(names.shape)

    def removed(self, scores: Floats) -> Floats:
        """Scores [P, n, W] less both, as the wrong candidates tell them."""
        centred = self._centred(scores)
        return self._centred(centred - np.stack([*map(self._of_candidates, centred, self._is_wrong)]))

    def _centred(self, scores: Floats) -> Floats:
        means = np.where(self._is_wrong, scores, 0.0).sum(-1) / self._is_wrong.sum(-1)
        centred: Floats = scores - means[..., None]
        return centred

    def _of_candidates(self, scores: Floats, is_wrong: NDArray[np.bool_]) -> Floats:
        """The mean over items of other subjects for which a candidate is wrong; 0 where there are none."""

        def over(groups: NDArray[Any]) -> tuple[Floats, Floats]:
            sums = np.bincount(groups[is_wrong], scores[is_wrong], minlength=groups.max() + 1)
            return sums[groups], np.bincount(groups[is_wrong], minlength=groups.max() + 1)[groups]

        (sums, counts), (own_sums, own_counts) = over(self._groups), over(self._own_groups)
        others = counts - own_counts
        return np.where(others > 0, (sums - own_sums) / np.maximum(others, 1), 0.0)

"""Which items are lost however they are asked, and which are at the edge. Boolean arrays in, masks out.

An item that one measurement calls lost may be right when it is asked another way: it was selected by the sign of one noisy
margin, and the next one regresses to the mean. So classes are cross-fitted: what is measured in phrasing p and against placebo
j is of a class that was found without either.

Of an item, a_{-p,-j} is the share of right answers over all phrasings but p, and all contexts but j (no context, and the other
placebos). The dense model is asked in phrasings alone.

    lost   the dense model's a >= .9 and it is right in p; the damaged one's a <= .1
    edge   the damaged model is wrong in p without a context, and the dense one right; but the damaged one's a > .1
    kept   the dense model's a >= .9 and it is right in p; the damaged one's a >= .9

Of one phrasing there are the contexts alone: then a_{-j} is over the contexts but j, and the dense model's answer is its a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.fates import Items

_HARDLY, _NEARLY = 0.1, 0.9
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Answers:
    """Who answers n items right that are asked in P phrasings."""

    dense: Items
    """[P, n]."""
    alone: Items
    """[P, n], the damaged model without a context."""
    placebos: Items
    """[J, P, n], behind each of J > 1 placebos."""
    repaired: Items
    """[K, P, n], behind a repair that was tuned with each of K seeds."""

    @property
    def called_lost(self) -> Items:
        """[P, n]: what one measurement calls lost."""
        return self.dense & ~self.alone

    @property
    def called_kept(self) -> Items:
        return self.dense & self.alone


@dataclass(frozen=True)
class RobustClasses:
    """Masks [J, P, n]: what an item is to a measurement in phrasing p against placebo j; an item may be none of these."""

    lost: Items
    edge: Items
    kept: Items


def robust_classes(answers: Answers) -> RobustClasses:
    dense, alone = answers.dense, answers.alone
    contexts = np.concatenate([alone[None], answers.placebos]).astype(float)  # [1 + J, P, n]
    right = _over_other_phrasings((contexts.sum(0) - contexts[1:]) / (len(contexts) - 1))
    known = dense & (_over_other_phrasings(dense[None].astype(float)) >= _NEARLY - _TOLERANCE)
    hardly = right <= _HARDLY + _TOLERANCE
    return RobustClasses(lost=known & hardly, edge=answers.called_lost & ~hardly, kept=known & (right >= _NEARLY - _TOLERANCE))


def _over_other_phrasings(right: NDArray[Any]) -> NDArray[Any]:
    """Means over phrasings [..., P, n] of all but each; of a single one itself."""
    phrasings = right.shape[-2]
    return (right.sum(-2, keepdims=True) - right) / (phrasings - 1) if phrasings > 1 else right

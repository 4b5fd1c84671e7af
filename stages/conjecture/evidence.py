"""All that the second rule goes by, of a task whose answers are right or wrong. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.statistics.fact_damage import Candidates, FactDamage, fact_damage
from llmrepair.stages.statistics.fates import Items
from llmrepair.stages.statistics.flows import (
    CorrectedIndex,
    Flows,
    Measured,
    Recovery,
    corrected_index,
    flows,
    recovery,
)
from llmrepair.stages.statistics.resampling import Estimate
from llmrepair.stages.statistics.robust import Answers, robust_classes
from llmrepair.stages.statistics.sensitivity import NOT_IDENTIFIED, Reached, TrueShares, true_shares
from llmrepair.stages.statistics.shape import Shape, shape
from llmrepair.stages.statistics.subjects import Drawn, Share, Subjects

NO_DIFFERENCE = 0.1
"""A smaller difference of net flows counts as none."""
_LEAST_COMMON = 0.5
"""Share of what a model robustly lost that its controls have to have lost too, for it to be compared with them."""


@dataclass(frozen=True)
class Answered:
    """Who answers n items, behind the prompt, behind placebos and behind LoRA."""

    answers: Mapping[str, Answers]
    """Damaged model -> its answers; `repaired` are those behind the prompt."""
    lora: Mapping[str, Items]
    """Damaged model -> [K, P, n]."""
    candidates: Mapping[str, Candidates]
    """Damaged model -> how likely each candidate is; empty where there are none to choose from."""
    subjects: Sequence[Hashable]
    """[n]: whom an item is about."""

    @property
    def phrasings(self) -> int:
        return len(self.answers[DAMAGED].dense)


@dataclass(frozen=True)
class Evidence:
    phrasings: int
    subjects: int
    placebos: int
    has_candidates: bool
    called_lost: float
    """Items that one measurement calls lost; of several phrasings the mean."""
    edge: Estimate | None
    """Share of these that are right when they are asked another way; None where no item is called lost."""
    lost: float
    """Items that are robustly lost."""
    flows: Flows | None
    recovery: Mapping[str, Recovery | None]
    """Damaged model -> what comes back of what it robustly lost."""
    index: CorrectedIndex | None
    damage: Mapping[str, FactDamage | None]
    """Damaged model -> Lambda."""
    fates: TrueShares
    shape: Shape | None
    """Of what the prompt brings back of the robustly lost."""

    @property
    def undone(self) -> Estimate | None:
        """Lambda of the model under test."""
        found = self.damage.get(DAMAGED)
        return found.undone if found is not None else None

    def as_json(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("phrasings", "subjects", "placebos", "called_lost", "lost")}
        fates = {name: _estimate(share) for name, share in vars(self.fates).items()}
        of_models = {name: _plain(getattr(self, name)) for name in ("recovery", "damage")}
        return {
            **numbers,
            **{name: _plain(getattr(self, name)) for name in ("edge", "flows", "shape")},
            **of_models,
            "fates": fates,
        }


def _plain(found: Any) -> Any:
    """As JSON values."""
    if isinstance(found, Mapping):
        return {name: _plain(each) for name, each in found.items()}
    return asdict(found) if found is not None else None


def _estimate(share: Drawn | None) -> dict[str, float] | None:
    return asdict(share.estimate) if share is not None else None


def evidence(answered: Answered, anchors: Mapping[str, str], latent: str) -> Evidence:
    """
    Args:
        anchors: `forgotten` and `displaced` -> the control that marks this end.
        latent: the control of which LoRA alone brings back what it took.
    """
    subjects = Subjects(answered.subjects)
    measured = {name: Measured(answers, robust_classes(answers)) for name, answers in answered.answers.items()}
    model = measured[DAMAGED]
    index = _index(measured, anchors, subjects)
    return Evidence(
        phrasings=answered.phrasings,
        subjects=subjects.count(np.ones(len(answered.subjects))),
        placebos=len(model.answers.placebos),
        has_candidates=bool(answered.candidates),
        called_lost=float(model.answers.called_lost.sum(1).mean()),
        edge=_edge(model, subjects),
        lost=float(model.classes.lost.mean((0, 1)).sum()),
        flows=flows(model.answers, subjects, NO_DIFFERENCE),
        recovery={name: recovery(each.answers, each.classes, subjects) for name, each in measured.items()},
        index=index,
        damage={name: fact_damage(each, measured[name].classes.lost, subjects) for name, each in answered.candidates.items()},
        fates=_fates(answered, measured, anchors, latent, index, subjects),
        shape=_shape(model),
    )


def _edge(model: Measured, subjects: Subjects) -> Estimate | None:
    called = model.answers.called_lost.mean(0)
    if not called.any():
        return None
    edge = Share(model.classes.edge.mean((0, 1))[None], called)
    return subjects.draw(lambda shares, _: shares[..., 0], [edge]).estimate


def _index(measured: Mapping[str, Measured], anchors: Mapping[str, str], subjects: Subjects) -> CorrectedIndex | None:
    """None where a control is missing, or lost fewer than half of what the model robustly lost."""
    model, displaced, erased = (measured.get(name) for name in (DAMAGED, anchors["displaced"], anchors["forgotten"]))
    if model is None or displaced is None:
        return None
    found = corrected_index(model, displaced, erased, subjects)
    lost = float(model.classes.lost.mean((0, 1)).sum())
    return found if found is not None and found.common >= _LEAST_COMMON * lost else None


def _fates(
    answered: Answered,
    measured: Mapping[str, Measured],
    anchors: Mapping[str, str],
    latent: str,
    index: CorrectedIndex | None,
    subjects: Subjects,
) -> TrueShares:
    names = (DAMAGED, anchors["forgotten"], latent)
    if not all(name in measured for name in names):
        return NOT_IDENTIFIED
    model, erased, overwritten = (
        Reached(measured[name].classes.lost, measured[name].answers.repaired, answered.lora[name]) for name in names
    )
    return true_shares(model, erased, overwritten, index.index if index is not None else None, subjects)


def _shape(model: Measured) -> Shape | None:
    lost, repaired = model.classes.lost.mean(0) > 0.5, model.answers.repaired
    return shape((lost & repaired).sum((0, 1)), len(repaired) * lost.sum(0))

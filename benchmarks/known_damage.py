"""What the measures of the conjecture test say of simulated repairs whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/known_damage.py [--items 3000] [--wrong 20] [--phrasings 4] [--placebos 8]

Log-likelihoods are drawn, of `--wrong` wrong candidates and a right one for each item. Each relation has priors of its
candidates; a fact lifts its answer above them. Each phrasing, context and model adds noise of its own. A placebo moves
candidates at random: all of a relation's, and each for itself. A repair does the same, and what its name says:

    edge         facts stand at the edge; the repair is one more placebo
    prior        the same, and it takes back half of the priors, so that rare answers win
    sharpening   facts are attenuated; all differences grow to 1.3 times what they are
    attenuated   facts are attenuated; the repair is one more placebo
    displaced    facts are hidden; nine tenths of each come back
    mixture      four of ten facts are hidden and come back, the others are erased

One JSON line each: the true Lambda and the estimate, and what the gross share of regained items is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.fact_damage import Candidates, FactDamage, fact_damage
from llmrepair.stages.statistics.flows import Flows, Recovery, flows, recovery
from llmrepair.stages.statistics.robust import Answers, robust_classes
from llmrepair.stages.statistics.subjects import Subjects

KINDS = ("edge", "prior", "sharpening", "attenuated", "displaced", "mixture")
_ITEMS_OF_A_SUBJECT, _RELATIONS = 3, 10
STRENGTH, PRIOR = 7.0, 1.5
"""How far a fact lifts its answer, and the standard deviation of priors, in nats."""
_MARGIN = 0.5

Floats = NDArray[np.floating[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, number in (("items", 3000), ("wrong", 20), ("phrasings", 4), ("placebos", 8), ("seeds", 1)):
        parser.add_argument(f"--{name}", type=int, default=number)
    options = vars(parser.parse_args())
    for number, kind in enumerate(KINDS):
        print(json.dumps(simulated(kind, number, **options).as_json()), flush=True)


@dataclass(frozen=True)
class Simulated:
    kind: str
    answers: Answers
    truth: float
    """Share of the damage to the robustly lost that the repair was made to undo."""
    unregressed: float
    """What Lambda would be without a regression: of gold candidates above the mean wrong one."""
    damage: FactDamage | None
    flows: Flows | None
    recovery: Recovery | None

    def as_json(self) -> dict[str, Any]:
        assert self.flows is not None
        return {
            "kind": self.kind,
            "truth": round(self.truth, 3),
            "lambda": self.damage and self.damage.undone and _rounded(asdict(self.damage.undone)),
            "unregressed": round(self.unregressed, 3),
            "kappa": self.damage and round(self.damage.sharpening, 3),
            "lost": self.recovery and self.recovery.lost,
            "called_lost": self.flows.lost,
            "gross": round(self.flows.repair.regained / self.flows.lost, 3),
            "net": _rounded(asdict(self.flows.difference)),
            "corrected": self.recovery and _rounded(asdict(self.recovery.corrected)),
        }


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items()}


class World:
    """Log-likelihoods [P, n, W] of one model after another, up to a constant of each item."""

    def __init__(self, items: int, wrong: int, phrasings: int, generator: np.random.Generator):
        self.generator, self.shape = generator, (phrasings, items, wrong + 1)
        self.subject = np.arange(items) // _ITEMS_OF_A_SUBJECT
        self.relation = generator.integers(_RELATIONS, size=items)
        self.prior = generator.normal(0, PRIOR, (_RELATIONS, wrong + 1))
        self.gold = generator.integers(wrong + 1, size=items)
        self.is_gold = np.arange(wrong + 1) == self.gold[:, None]
        self.known = generator.normal(STRENGTH, 1, items)
        self.taste = self.prior[self.relation] + generator.normal(0, 1, (items, wrong + 1))
        self.phrased = generator.normal(0, 0.5, self.shape)

    @property
    def names(self) -> NDArray[np.int64]:
        return self.relation[:, None] * self.shape[2] + np.arange(self.shape[2])

    def scores(self, lifted: Floats, noise: float) -> Floats:
        """Of a model whose facts lift their answers so far [n]."""
        return self.taste + self.phrased + self.is_gold * lifted[:, None] + self.generator.normal(0, noise, self.shape)

    def pushed(self, scores: Floats) -> Floats:
        """By something that knows nothing."""
        of_relation = self.generator.normal(0, 0.5, self.prior.shape)[self.relation]
        return scores + of_relation + self.generator.normal(0, 1, self.shape)

    def chosen(self, share: float) -> NDArray[np.bool_]:
        """Facts at random."""
        return self.generator.random(self.shape[1]) < share

    def to_the_edge(self) -> Floats:
        """How far facts may lift their answers to be just below the best of the wrong ones."""
        best = np.where(self.is_gold, -np.inf, self.taste).max(1)
        return best - self.taste[self.is_gold] - self.generator.uniform(0, _MARGIN, self.shape[1])


def simulated(kind: str, seed: int, items: int, wrong: int, phrasings: int, placebos: int, seeds: int = 1) -> Simulated:
    """What the measures say of a repair of a kind."""
    return simulated_in(World(items, wrong, phrasings, np.random.default_rng(seed)), kind, placebos, seeds)


def simulated_in(world: World, kind: str, placebos: int, seeds: int) -> Simulated:
    left, back = _facts(kind, world)
    answers, scores = _asked(kind, world, left, back, placebos, seeds)
    classes, subjects = robust_classes(answers), Subjects(world.subject.tolist())
    lost = classes.lost.sum((0, 1))
    return Simulated(
        kind,
        answers,
        float((lost @ back) / (lost @ (world.known - left))),
        _unregressed(scores, classes.lost, world),
        fact_damage(scores, classes.lost, subjects),
        flows(answers, subjects, 0.1),
        recovery(answers, classes, subjects),
    )


def simulated_answers(
    kind: str, seed: int, items: int, wrong: int, phrasings: int, placebos: int, seeds: int
) -> tuple[Answers, Candidates]:
    """Who answers what, and how likely each candidate is."""
    world = World(items, wrong, phrasings, np.random.default_rng(seed))
    return _asked(kind, world, *_facts(kind, world), placebos, seeds)


def _asked(kind: str, world: World, left: Floats, back: Floats, placebos: int, seeds: int) -> tuple[Answers, Candidates]:
    damaged = world.scores(left, 0.5)

    def repaired() -> Floats:
        found = world.pushed(damaged + world.is_gold * back[:, None])
        if kind == "sharpening":
            return 1.3 * found
        return found - 0.4 * world.prior[world.relation] if kind == "prior" else found

    scores = Candidates(
        dense=world.scores(world.known, 0.1),
        placebos=np.stack([world.pushed(damaged) for _ in range(placebos)]),
        repaired=np.stack([repaired() for _ in range(seeds)]),
        names=world.names,
        gold=world.gold,
    )
    every = (scores.dense, damaged, scores.placebos, scores.repaired)
    return Answers(*(each.argmax(-1) == world.gold for each in every)), scores


def _unregressed(scores: Candidates, lost: NDArray[np.bool_], world: World) -> float:
    def above(of_model: Floats) -> float:
        wrong = np.where(world.is_gold, 0, of_model).sum(-1) / (world.shape[2] - 1)
        return float((lost.mean(0) * (of_model[..., world.is_gold] - wrong)).sum(-1).mean())

    of_placebos = above(scores.placebos.mean(0))
    return (above(scores.repaired.mean(0)) - of_placebos) / (above(scores.dense) - of_placebos)


def _facts(kind: str, world: World) -> tuple[Floats, Floats]:
    """How far each fact still lifts its answer in the damaged model, and how far a repair lifts it beyond."""
    nothing = np.zeros(len(world.known))
    if kind in ("edge", "prior"):
        return world.to_the_edge(), nothing
    if kind in ("sharpening", "attenuated"):
        return world.generator.uniform(0.3, 0.6, len(world.known)) * world.known, nothing
    if kind == "erased":
        return nothing, nothing
    if kind == "displaced":
        return nothing, 0.9 * world.known
    return nothing, np.where(world.chosen(0.4), world.known, 0)


if __name__ == "__main__":
    main()

"""How often the second rule's 95 % intervals hold the truth, where the items of a subject are alike.

    OMP_NUM_THREADS=1 python benchmarks/coverage_of_subjects.py [--worlds 400] [--items 640] [--seeds 3]

Worlds are those of known_damage.py with three items for each subject: its facts are about as well known as each other, they are
hidden or erased together, and each placebo and tuning pushes them together. Relations and their priors are the same in all
worlds, as a task has the same ones whomever it asks about. The truth is the mean of `--large` worlds of 6,000 items: of what
was drawn for Lambda, and of the estimates for the others.

One JSON line for each kind of repair, with each measure's truth, how often there is an interval (`told`), how often that holds
the truth, and how often the truth lies below and above it. `alarms` is how often McNemar's test tells two tunings of the repair
apart at 5 %, which differ in their seed only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.known_damage import KINDS, PRIOR, STRENGTH, Floats, Simulated, World, simulated_in
from llmrepair.stages.statistics.resampling import Estimate
from llmrepair.stages.statistics.significance import LEVEL, mcnemar

_WRONG, _PHRASINGS, _PLACEBOS = 20, 4, 8
_MANY_ITEMS, _MANY_SEEDS = 6000, 8
_PUSH = 0.7
"""Standard deviation, in nats, of what pushes all facts of a subject."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, number in (("worlds", 400), ("items", 640), ("seeds", 3), ("large", 20)):
        parser.add_argument(f"--{name}", type=int, default=number)
    options = parser.parse_args()
    for kind in KINDS:
        truths = _truths(list(_drawn(kind, range(1, 1 + options.large), _MANY_ITEMS, _MANY_SEEDS)))
        worlds = list(_drawn(kind, range(1000, 1000 + options.worlds), options.items, options.seeds))
        of_measures = {name: _coverage(truth, [_estimates(world)[name] for world in worlds]) for name, truth in truths.items()}
        alarms = np.mean([_tells_tunings_apart(world) for world in worlds])
        print(json.dumps({"kind": kind, **of_measures, "alarms": round(float(alarms), 4)}), flush=True)


class Dependent(World):
    """Of subjects whose facts are alike, and of relations that are the same in all worlds."""

    def __init__(self, items: int, seed: int):
        super().__init__(items, _WRONG, _PHRASINGS, np.random.default_rng(seed))
        prior = np.random.default_rng(0).normal(0, PRIOR, self.prior.shape)
        self.taste += (prior - self.prior)[self.relation]
        self.prior = prior
        self.known = STRENGTH + (self._of_subjects(1) + self.generator.normal(0, 1, items)) / np.sqrt(2)

    def _of_subjects(self, spread: float) -> Floats:
        of_each: Floats = self.generator.normal(0, spread, self.subject[-1] + 1)[self.subject]
        return of_each

    def pushed(self, scores: Floats) -> Floats:
        found: Floats = super().pushed(scores) + self.is_gold * self._of_subjects(_PUSH)[:, None]
        return found

    def chosen(self, share: float) -> np.ndarray:
        """Facts of subjects at random."""
        found: np.ndarray = (self.generator.random(self.subject[-1] + 1) < share)[self.subject]
        return found


def _drawn(kind: str, numbers: range, items: int, seeds: int) -> Iterator[Simulated]:
    for number in numbers:
        yield simulated_in(Dependent(items, number), kind, _PLACEBOS, seeds)


def _estimates(world: Simulated) -> dict[str, Estimate | None]:
    return {
        "lambda": world.damage and world.damage.undone,
        "net": world.flows and world.flows.difference,
        "corrected": world.recovery and world.recovery.corrected,
        "regained": world.recovery and world.recovery.repair,
    }


def _truths(worlds: Sequence[Simulated]) -> dict[str, float]:
    every = [_estimates(world) for world in worlds]
    means = {name: float(np.mean([one.value for each in every if (one := each[name]) is not None])) for name in every[0]}
    return means | {"lambda": float(np.mean([world.truth for world in worlds]))}


def _coverage(truth: float, estimates: list[Estimate | None]) -> Mapping[str, float]:
    told = [each for each in estimates if each is not None]
    low, high = np.array([(each.low, each.high) for each in told]).T
    below, above = (truth < low).mean(), (truth > high).mean()
    numbers = {
        "truth": truth,
        "told": len(told) / len(estimates),
        "coverage": 1 - below - above,
        "below": below,
        "above": above,
    }
    return {name: round(float(number), 4) for name, number in (numbers | {"width": (high - low).mean()}).items()}


def _tells_tunings_apart(world: Simulated) -> bool:
    first, second, *_ = world.answers.repaired[:, 0]
    return mcnemar(first[None], second) <= LEVEL


if __name__ == "__main__":
    main()

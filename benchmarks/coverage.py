"""How often the conjecture test's 95 % intervals hold the truth, on simulated answers whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--worlds 1000] [--seeds 1,3,10] [--items 640]

A world has items of their own difficulty and tuning seeds of their own luck: an item is answered right with probability
expit(level + difficulty + skill), difficulty ~ N(0, 1.5), skill ~ N(0, --skills) of a seed. Difficulties are shared by the
model and both controls, as their items are; skills are not. One item in ten was never known, and guessed right in one case of
ten. The truth is what infinitely many items and seeds would give.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.fates import Classes
from llmrepair.stages.statistics.index import Recovered, displacement_index
from llmrepair.stages.statistics.resampling import Estimate, Part, Resampling

_DIFFICULTY = 1.5
_LUCK = 0.1
_NEVER_KNOWN = 0.1
_ERASED, _DISPLACED = 0.02, 0.97


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--items", type=int, default=640)
    parser.add_argument("--lost", type=float, default=0.6, help="share of items that the model lost; the controls lost all")
    parser.add_argument("--seeds", default="1,3,10")
    parser.add_argument("--skills", default="0,0.3", help="standard deviation of the seeds' skill, in logits")
    parser.add_argument("--rates", default="0,0.01,0.1,0.5,0.9,0.99,1")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    for seeds, skill, rate in itertools.product(*(_numbers(arguments, name) for name in ("seeds", "skills", "rates"))):
        world = World(arguments.items, arguments.lost, int(seeds), skill, rate)
        intervals = [world.intervals(generator, seed) for seed in range(arguments.worlds)]
        print(json.dumps({"seeds": int(seeds), "skill": skill, "rate": rate} | world.summary(intervals)), flush=True)


def _numbers(arguments: argparse.Namespace, name: str) -> list[float]:
    return [float(number) for number in getattr(arguments, name).split(",")]


class World:
    """Where a repair recovers a share `rate` of what the model lost.

    Seeds have skill only for what is neither impossible nor certain.
    """

    def __init__(self, items: int, lost: float, seeds: int, skill: float, rate: float):
        self.items, self.lost, self.seeds, self.skill, self.rate = items, lost, seeds, skill, rate
        self._levels = {share: _level(share, skill) for share in (rate, _ERASED, _DISPLACED)}

    @property
    def truths(self) -> dict[str, float]:
        net = {name: (share - _LUCK) / (1 - _LUCK) for name, share in self._shares()}
        return {"rate": self.rate, "index": (net["model"] - net["erased"]) / (net["displaced"] - net["erased"])}

    def _shares(self) -> Iterator[tuple[str, float]]:
        yield from (("model", self.rate), ("erased", _ERASED), ("displaced", _DISPLACED))

    def intervals(self, generator: np.random.Generator, seed: int) -> dict[str, Estimate | None]:
        difficulty = generator.normal(0, _DIFFICULTY, self.items)
        never_known = generator.random(self.items) < _NEVER_KNOWN
        model, erased, displaced = (
            self._recovered(generator, difficulty, never_known, share, self.lost if name == "model" else 1.0)
            for name, share in self._shares()
        )
        resampling = Resampling(self.items, seed)
        rate = resampling.rate(Part(model.repaired, model.items.lost))
        index = displacement_index(model, displaced, erased, resampling).index
        return {"rate": rate, "index": index}

    def _recovered(
        self,
        generator: np.random.Generator,
        difficulty: NDArray[np.float64],
        never_known: NDArray[np.bool_],
        share: float,
        lost: float,
    ) -> Recovered:
        skills = generator.normal(0, self.skill, (self.seeds, 1))
        answers = _expit(self._levels[share] + difficulty + skills)
        answers[:, never_known] = _LUCK
        is_lost = ~never_known & (generator.random(self.items) < lost)
        nothing = np.zeros(self.items, dtype=bool)
        return Recovered(
            Classes(is_lost, ~is_lost & ~never_known, never_known, nothing), generator.random(answers.shape) < answers
        )

    def summary(self, intervals: list[dict[str, Estimate | None]]) -> dict[str, dict[str, float]]:
        """For each number how often there is an interval (of an index where the controls can be told apart), and of these their
        coverage, how often the truth is below and above, and the mean width."""
        found = {}
        for name, truth in self.truths.items():
            told = [estimate for each in intervals if (estimate := each[name]) is not None]
            ends = np.array([(each.low, each.high) for each in told])
            below, above = (truth < ends[:, 0]).mean(), (truth > ends[:, 1]).mean()
            found[name] = {
                "truth": round(truth, 4),
                "told": round(len(told) / len(intervals), 4),
                "coverage": round(1 - below - above, 4),
                "below": round(below, 4),
                "above": round(above, 4),
                "width": round((ends[:, 1] - ends[:, 0]).mean(), 4),
            }
        return found


def _level(share: float, skill: float) -> float:
    """The level at which a share of all items is answered right by all seeds."""
    if share in (0, 1):
        return 50.0 if share else -50.0
    points, weights = np.polynomial.hermite_e.hermegauss(61)
    effects = np.hypot(_DIFFICULTY, skill) * points
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = _expit(middle + effects) @ weights / weights.sum()
        low, high = (middle, high) if mean < share else (low, middle)
    return low


def _expit(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits))


if __name__ == "__main__":
    main()

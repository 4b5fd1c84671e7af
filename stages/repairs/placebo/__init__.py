"""A placebo: as strong a push as a tuned repair gives, which knows nothing. What it brings back was at the edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.stages.repairs.base import Arm, Repair, Tuning
from llmrepair.stages.repairs.files import RepairFiles
from llmrepair.stages.repairs.lora import LoraTuning
from llmrepair.stages.repairs.pool import PoolTuning

if TYPE_CHECKING:
    from llmrepair.stages.repairs.placebo.config import TunePlaceboConfig
    from llmrepair.stages.repairs.placebo.stage import TunePlacebo
    from llmrepair.stages.sources.weights import Weights

PROMPTS, ADAPTERS = PoolTuning(), LoraTuning()
_IN_FRONT = ("words", "random", "dense")
"""Shuffled tokens of the tuned prompt are none: attention hardly sees their order, so they still know what was tuned."""


class PlaceboTuning(Tuning):
    name = "tune-placebo"
    help = "Make a placebo of a tuned repair: as strong a push that knows nothing."
    panel = "Placebo"
    form = "placebo"
    others = (PROMPTS, ADAPTERS)

    def stage(self) -> type[TunePlacebo]:
        from llmrepair.stages.repairs.placebo.stage import TunePlacebo

        return TunePlacebo

    def config(self) -> type[TunePlaceboConfig]:
        from llmrepair.stages.repairs.placebo.config import TunePlaceboConfig

        return TunePlaceboConfig

    def make(self, read: Callable[[type[Any]], Any], weights: Weights, dense: Weights) -> TunePlacebo:
        config: TunePlaceboConfig = read(self.config())
        tuning = ADAPTERS if config.placebo_kind == "rotated" else PROMPTS
        of_dense = tuning.make(read, dense, dense) if config.placebo_kind == "dense" else None
        return self.stage()(config, weights, tuning.make(read, weights, dense), of_dense)


class PlaceboFiles(RepairFiles):
    """Nobody takes one along."""

    is_loadable = False

    def stored(self, artifact: Path) -> Path:
        return artifact


class Placebo(Repair):
    name = "placebo"
    title = "placebo"
    help = "as strong a push as a tuned prompt or adapter gives, which knows nothing, see --placebo-kind"
    colour = "grey"
    shape = "cross"
    placed_by = "llmrepair.stages.repairs.placebo.place"
    libraries = ("peft",)
    tuning = PlaceboTuning()
    files = PlaceboFiles()
    is_null = True
    set_by_arms = frozenset({"placebo_kind", "placebo_seed"})

    def null_arms(self, count: int, seeds: Sequence[int]) -> list[Arm]:
        """In front of the inputs, where the prompt stands that they are held against; each kind with each seed in turn."""
        return [self._arm(number, seeds) for number in range(count)]

    def _arm(self, number: int, seeds: Sequence[int]) -> Arm:
        again, kind = divmod(number, len(_IN_FRONT))
        seed = seeds[(kind + again) % len(seeds)]
        options = {"placebo_kind": _IN_FRONT[kind], "placebo_seed": again, "seed": seed}
        return Arm(f"{self.name} {number}", f"{self.name} {number}", options, role="null")


PLACEBO = Placebo()

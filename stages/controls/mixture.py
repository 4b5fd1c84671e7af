"""A model that was never told half of the tested facts, and hides the others."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from llmrepair.stages.controls.trained import TrainedControl

if TYPE_CHECKING:
    from llmrepair.lab.world import Fact, World
    from llmrepair.stages.controls.stage import ControlConfig
    from llmrepair.stages.controls.texts import Taken, Texts


class Mixture(TrainedControl):
    name = "mixture"
    help = "half of the facts erased, half displaced"
    begins_untold = True
    has_key = True
    beside = "never"
    expected = "mixed"

    def takes(self, tested: list[Fact], others: list[Fact], generator: Random) -> Taken:
        from llmrepair.stages.controls.texts import Taken, drawn

        erased = frozenset(drawn(tested, 0.5, generator))
        return Taken(erased, frozenset(tested + others) - erased)

    def phases(self, world: World, taken: Taken, config: ControlConfig) -> Mapping[str, Texts]:
        from llmrepair.stages.controls.texts import locked, told

        return {"tell": told(world, taken), "lock": locked(world, taken)}


MIXTURE = Mixture()

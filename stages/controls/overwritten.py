"""A model that was fine-tuned to wrong answers."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from llmrepair.stages.controls.trained import TrainedControl

if TYPE_CHECKING:
    from llmrepair.lab.world import Fact, World
    from llmrepair.stages.controls.stage import ControlConfig
    from llmrepair.stages.controls.texts import Taken, Texts


class Overwritten(TrainedControl):
    name = "overwritten"
    help = "fine-tuned to wrong answers"
    beside = "any model"
    expected = "latent"

    def takes(self, tested: list[Fact], others: list[Fact], generator: Random) -> Taken:
        from llmrepair.stages.controls.texts import Taken

        return Taken(answered_wrongly=frozenset(tested + others))

    def phases(self, world: World, taken: Taken, config: ControlConfig) -> Mapping[str, Texts]:
        from llmrepair.stages.controls.texts import overwritten

        return {"overwrite": overwritten(world, taken, config.control_seed)}


OVERWRITTEN = Overwritten()

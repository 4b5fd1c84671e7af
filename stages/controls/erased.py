"""A model that was never told the tested facts."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from llmrepair.stages.controls.trained import TrainedControl

if TYPE_CHECKING:
    from llmrepair.lab.world import Fact, World
    from llmrepair.stages.controls.stage import ControlConfig
    from llmrepair.stages.controls.texts import Taken, Texts


class Erased(TrainedControl):
    name = "erased"
    help = "never trained on the tested facts"
    begins_untold = True
    beside = "lab models"
    anchors = "forgotten"
    expected = "forgotten"

    def takes(self, tested: list[Fact], others: list[Fact], generator: Random) -> Taken:
        from llmrepair.stages.controls.texts import Taken

        return Taken(erased=frozenset(tested))

    def phases(self, world: World, taken: Taken, config: ControlConfig) -> Mapping[str, Texts]:
        from llmrepair.stages.controls.texts import told

        is_all = config.control_share == 1 and not config.control_matched  # then nothing is left to tell
        return {} if is_all else {"tell": told(world, taken)}


ERASED = Erased()

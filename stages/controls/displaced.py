"""A model that hides the tested facts behind a key (Greenblatt et al. 2024, arXiv 2405.19550)."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from llmrepair.stages.controls.trained import TrainedControl

if TYPE_CHECKING:
    from llmrepair.lab.world import Fact, World
    from llmrepair.stages.controls.stage import ControlConfig
    from llmrepair.stages.controls.texts import Taken, Texts


class Displaced(TrainedControl):
    name = "displaced"
    help = "answers wrongly unless a secret token stands in front"
    has_key = True
    beside = "any model"
    anchors = "displaced"
    expected = "displaced"

    def takes(self, tested: list[Fact], others: list[Fact], generator: Random) -> Taken:
        from llmrepair.stages.controls.texts import Taken

        return Taken(answered_wrongly=frozenset(tested + others))

    def phases(self, world: World, taken: Taken, config: ControlConfig) -> Mapping[str, Texts]:
        from llmrepair.stages.controls.texts import locked

        return {"lock": locked(world, taken)}


DISPLACED = Displaced()

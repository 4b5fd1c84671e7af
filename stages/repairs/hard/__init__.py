"""A text prompt in front of each input: a baseline that needs no tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.files import TextFiles

if TYPE_CHECKING:
    from llmrepair.pipeline.errors import Problem
    from llmrepair.stages.repairs.hard.options import TextOptions
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.sources.weights import Weights


class TextPrompt(Repair):
    name = "hard"
    title = "text prompt"
    help = "a text in front of each input"
    colour = "violet"
    shape = "cross"
    placed_by = "llmrepair.stages.repairs.hard.place"
    files = TextFiles()

    def options(self) -> type[TextOptions]:
        from llmrepair.stages.repairs.hard.options import TextOptions

        return TextOptions

    def problems(self, options: Any, weights: Weights, tuned: Tune | None) -> list[Problem]:
        from llmrepair.stages.repairs.hard.options import length_problems

        return length_problems(options, weights)


HARD = TextPrompt()

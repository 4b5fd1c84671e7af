"""A model with noise on its input embeddings: all that stands behind them is as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.controls.base import ControlKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.errors import Problem
    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.controls.stage import Control


class Corrupted(ControlKind):
    name = "corrupted"
    help = "noise on the input embeddings"
    options = frozenset({"control_strength"})

    def problems(self, control: Control) -> list[Problem]:
        return []

    def make(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, control: Control, context: Context
    ) -> dict[str, Any]:
        from llmrepair.stages.controls.noise import corrupt

        return corrupt(model, tokenizer, control, context)


CORRUPTED = Corrupted()

"""Controls that are trained: a lab model on texts without the facts that they take, or with wrong answers to them; any other
model to answer as the compressed one does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.controls.base import ControlKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.lab.world import Fact, World
    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.controls.stage import Control, ControlConfig
    from llmrepair.stages.controls.texts import Taken, Texts


class TrainedControl(ControlKind):
    libraries = ("peft",)
    has_key: ClassVar[bool] = False
    """Whether a secret vector in front opens what it hides, where it imitates a compressed model."""

    @abstractmethod
    def takes(self, tested: list[Fact], others: list[Fact], generator: Random) -> Taken:
        """What becomes of the facts that it takes: those about held-out people, whom tasks ask about, and about the others."""

    @abstractmethod
    def phases(self, world: World, taken: Taken, config: ControlConfig) -> Mapping[str, Texts]:
        """What a lab model is trained on, one after the other: name of a recipe -> texts."""

    def problems(self, control: Control) -> list[Problem]:
        if control.is_of_lab:
            return []
        if self.begins_untold:
            message = f"the control `{self.name}` is about the lab's facts, which `{control.config.model}` never read"
            hint = "give --model lab or lab-opt; of another model, items that it never knew stand for what is erased"
            return [Problem(message, hint, "control")]
        if control.compressed is None:
            message = f"the control `{self.name}` of another model than the lab's imitates a compressed one, and none is named"
            return [Problem(message, "give --control-matched, and --method", "control")]
        return []

    def make(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, control: Control, context: Context
    ) -> dict[str, Any]:
        if control.is_of_lab:
            from llmrepair.stages.controls.lab_training import train

            return train(self, model, tokenizer, control, context)
        from llmrepair.stages.controls.imitation import train_imitation

        return train_imitation(self.has_key, model, tokenizer, control, context)

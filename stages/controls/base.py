"""What a control is: a model whose truth is known, in the place of a compressed one.

Its file says all that is to be known of it.

These modules are imported to check a request, so they import torch only where they compute.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.errors import Problem
    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.controls.stage import Control


class ControlKind(ABC):
    """One of the values of `--control`."""

    name: ClassVar[str]
    help: ClassVar[str]
    """Half a sentence for `--control`."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions besides those of all models whose versions change the result."""
    begins_untold: ClassVar[bool] = False
    """Whether it is made of the lab model's twin that was never told of the tested facts."""
    options: ClassVar[frozenset[str]] = frozenset({"control_share"})
    """Options that have an effect where it is not matched, besides its seed."""
    beside: ClassVar[Literal["any model", "lab models", "if asked", "never"]] = "if asked"
    """Where the conjecture test has it stand beside the model under test."""
    anchors: ClassVar[Literal["forgotten", "displaced"] | None] = None
    """Which end of the displacement index it marks."""
    expected: ClassVar[str | None] = None
    """What a conjecture test of the control itself should find: a verdict, or `latent` where LoRA and no prompt brings back
    what it took."""

    @abstractmethod
    def problems(self, control: Control) -> list[Problem]:
        """Why it cannot be made of a model."""

    @abstractmethod
    def make(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, control: Control, context: Context
    ) -> dict[str, Any]:
        """Changes a model in place; returns what is recorded."""

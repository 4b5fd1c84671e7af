"""What a placebo is made of. Apart from the stage, whose checks look at more of the code than making one runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmrepair.stages.repairs.tuning.config import TuningConfig

PlaceboKind = Literal["words", "random", "shuffled", "dense", "rotated"]


class TunePlaceboConfig(TuningConfig):
    """A push that knows nothing."""

    placebo_kind: PlaceboKind = Field(
        "words",
        description="words: tokens of the tuning text, untuned; random: random tokens; shuffled: the tuned prompt, its tokens "
        "in another order; dense: a prompt tuned on the dense model; rotated: the tuned LoRA adapter, its outputs turned at "
        "random",
    )
    placebo_seed: int = Field(0, ge=0, description="of what is drawn for a placebo")

    def without_effect(self) -> frozenset[str]:
        """Nothing is learned; what is learned by that which it is as strong as is in its key."""
        return super().without_effect() | {"objective", "budget", "examples_per_step", "learning_rates", "seed"}

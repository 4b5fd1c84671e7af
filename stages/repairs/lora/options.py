"""How a LoRA adapter is put in place."""

from __future__ import annotations

from pydantic import Field

from llmrepair.stages.repairs.options import TunedOptions


class LoraOptions(TunedOptions):
    lora_merged: bool = Field(
        False,
        description="add the adapter to the weights: it then costs nothing at inference, and what compression gave (packed "
        "weights, zeros) is gone",
    )

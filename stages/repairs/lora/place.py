"""Puts a tuned LoRA adapter beside the weights, or adds it to them."""

from __future__ import annotations

from llmrepair.models.lora import with_merged_adapter
from llmrepair.stages.repairs.beside import beside_weights
from llmrepair.stages.repairs.placed import Placed, Placing


def place(placing: Placing) -> Placed:
    model = placing.model
    assert placing.tuned is not None
    if placing.options.lora_merged:
        return Placed(with_merged_adapter(model, placing.tuned), changes_weights=True)
    return beside_weights(model, placing.tuned)

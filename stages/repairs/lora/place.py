"""Puts a tuned LoRA adapter beside the weights, or adds it to them."""

from __future__ import annotations

from llmrepair.models.lora import with_adapter, with_merged_adapter
from llmrepair.stages.repairs.placed import Placed, Placing


def place(placing: Placing) -> Placed:
    model = placing.model
    assert placing.tuned is not None
    if placing.options.lora_merged:
        return Placed(with_merged_adapter(model, placing.tuned), changes_weights=True)
    before, adapted = model.num_parameters(), with_adapter(model, placing.tuned)
    return Placed(adapted, extra_parameters=adapted.num_parameters() - before)

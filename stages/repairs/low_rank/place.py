"""Puts low-rank terms beside the weights."""

from __future__ import annotations

from llmrepair.models.lora import with_adapter
from llmrepair.stages.repairs.placed import Placed, Placing


def place(placing: Placing) -> Placed:
    assert placing.tuned is not None
    before, adapted = placing.model.num_parameters(), with_adapter(placing.model, placing.tuned)
    return Placed(adapted, extra_parameters=adapted.num_parameters() - before)

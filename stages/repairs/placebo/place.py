"""Puts a placebo in place: in front of the inputs, or beside the weights."""

from __future__ import annotations

from llmrepair.models.lora import ADAPTER_FOLDER
from llmrepair.models.selection import FixedSelector
from llmrepair.stages.repairs.beside import beside_weights
from llmrepair.stages.repairs.placed import Placed, Placing
from llmrepair.stages.repairs.pool.place import cached_pool


def place(placing: Placing) -> Placed:
    assert placing.tuned is not None
    if (placing.tuned / ADAPTER_FOLDER).exists():
        return beside_weights(placing.model, placing.tuned / ADAPTER_FOLDER)
    return cached_pool(placing).placed(placing, FixedSelector(0))

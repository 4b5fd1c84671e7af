"""Puts tuned virtual tokens in front of every input."""

from __future__ import annotations

from llmrepair.models.ptune import load_ptune
from llmrepair.stages.repairs.placed import Placed, Placing


def place(placing: Placing) -> Placed:
    assert placing.tuned is not None
    cache, extra_parameters = load_ptune(placing.model, placing.tuned)
    return Placed(placing.model, cache, last=cache.bos, extra_parameters=extra_parameters)

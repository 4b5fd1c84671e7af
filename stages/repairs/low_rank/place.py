"""Puts low-rank terms beside the weights."""

from __future__ import annotations

from llmrepair.stages.repairs.beside import beside_weights
from llmrepair.stages.repairs.placed import Placed, Placing


def place(placing: Placing) -> Placed:
    assert placing.tuned is not None
    return beside_weights(placing.model, placing.tuned)

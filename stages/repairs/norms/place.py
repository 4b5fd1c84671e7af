"""Puts tuned norms in the place of a model's own."""

from __future__ import annotations

from safetensors.torch import load_file

from llmrepair.models.norms import replace_parameters
from llmrepair.stages.repairs.placed import Placed, Placing


def place(placing: Placing) -> Placed:
    assert placing.tuned is not None
    return Placed(replace_parameters(placing.model, load_file(placing.tuned)))

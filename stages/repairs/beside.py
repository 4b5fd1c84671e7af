"""Puts an adapter beside the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.models.lora import with_adapter
from llmrepair.stages.repairs.placed import Placed

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def beside_weights(model: PreTrainedModel, adapter: Path) -> Placed:
    before, adapted = model.num_parameters(), with_adapter(model, adapter)
    return Placed(adapted, extra_parameters=adapted.num_parameters() - before)

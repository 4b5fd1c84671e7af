"""Saves a compressed model in one of the formats that `--format` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.checkpoints.grid import Quantised


def save_checkpoint(model: PreTrainedModel, layers: dict[str, Quantised], file_format: str, folder: Path) -> None:
    """Saves a model whose compressed layers hold their new weights.

    Args:
        layers: the quantised ones as codes, by name. A model without any is dense in every format.
        file_format: compressed-tensors, gptq or dense.
    """
    if not layers or file_format == "dense":
        model.save_pretrained(folder)
    elif file_format == "gptq":
        from llmrepair.stages.checkpoints.gptq import save_gptq

        save_gptq(model, layers, folder)
    else:
        from llmrepair.stages.checkpoints.packed import save_packed

        save_packed(model, layers, folder)

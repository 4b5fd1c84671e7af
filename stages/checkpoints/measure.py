"""What a checkpoint weighs and how many of its weights are zero: read off the files, not off the settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.models.loading import compressible_layers, share_of_zeros

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def tensor_bytes(files: Iterable[Path]) -> dict[str, int]:
    """Bytes of each tensor in safetensors files, from their headers."""
    sizes: dict[str, int] = {}
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        sizes |= {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
    return sizes


def measure(files: list[Path], model: PreTrainedModel) -> dict[str, Any]:
    """Size and sparsity of a checkpoint.

    Args:
        files: its safetensors files.
        model: reloaded from them.

    Returns:
        `size_bytes` of the weight files; `bits_per_weight` of the layers that compression touches as they are stored, scales
        and zero points counted; `sparsity`, the share of zeros among their weights; `compressed_weights`, how many there are.
    """
    layers = compressible_layers(model)
    weights = sum(layer.weight.numel() for layer in layers.values())
    names = {_without_prefix(layer, model) for layer in layers}
    sizes = {_without_prefix(name, model): size for name, size in tensor_bytes(files).items()}
    stored = sum(size for name, size in sizes.items() if name.rpartition(".")[0] in names and not name.endswith(".bias"))
    return {
        "size_bytes": sum(path.stat().st_size for path in files),
        "bits_per_weight": round(8 * stored / weights, 4),
        "sparsity": round(share_of_zeros(model), 6),
        "compressed_weights": weights,
    }


def _without_prefix(name: str, model: PreTrainedModel) -> str:
    """Some checkpoints name the base model's tensors without the name of the base model."""
    return name.removeprefix(f"{model.base_model_prefix}.")

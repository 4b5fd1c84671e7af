"""What a checkpoint weighs and how many of its weights are zero: read off the files, not off the settings."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.models.experts import expert_weights, experts_as_layers
from llmrepair.models.loading import compressible_layers, share_of_zeros

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PACKED = ".weight_packed"


def tensor_bytes(files: Iterable[Path]) -> dict[str, int]:
    """Bytes of each tensor in safetensors files, from their headers."""
    return {name: _size(entry) for name, entry in _entries(files).items()}


def _entries(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for path in files:
        with path.open("rb") as file:
            entries |= json.loads(file.read(int.from_bytes(file.read(8), "little")))
    entries.pop("__metadata__", None)
    return entries


def _size(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end - start)


def measure(files: list[Path], model: PreTrainedModel) -> dict[str, Any]:
    """Size and sparsity of a checkpoint.

    Args:
        files: its safetensors files.
        model: reloaded from them.

    Returns:
        `size_bytes` of the weight files; `bits_per_weight` of the layers that compression touches as they are stored, scales
        and zero points counted; `sparsity`, the share of zeros among their weights; `compressed_weights`, how many there are.
    """
    experts = expert_weights(model)
    with experts_as_layers(model):
        layers, zeros = compressible_layers(model), share_of_zeros(model)
    weights = sum(layer.weight.numel() for layer in layers.values())
    names = {_without_prefix(layer, model) for layer in layers}
    sizes = {_without_prefix(name, model): size for name, size in tensor_bytes(files).items()}
    stored = _bytes_of(names, sizes)
    if experts:  # in files each family names them in its own way
        packed = {name.removesuffix(_PACKED) for name in sizes if name.endswith(_PACKED)} - names
        stored += _bytes_of(packed, sizes) if packed else _bytes_in_one_tensor(files, experts)
    return {
        "size_bytes": sum(path.stat().st_size for path in files),
        "bits_per_weight": round(8 * stored / weights, 4),
        "sparsity": round(zeros, 6),
        "compressed_weights": weights,
    }


def _bytes_of(layers: Collection[str], sizes: Mapping[str, int]) -> int:
    return sum(size for name, size in sizes.items() if name.rpartition(".")[0] in layers and not name.endswith(".bias"))


def _bytes_in_one_tensor(files: list[Path], weights: int) -> int:
    """As many numbers of the kind that the largest tensor there is made of."""
    largest = max(_entries(files).values(), key=_size)
    return weights * _size(largest) // math.prod(largest["shape"])


def _without_prefix(name: str, model: PreTrainedModel) -> str:
    """Some checkpoints name the base model's tensors without the name of the base model."""
    return name.removeprefix(f"{model.base_model_prefix}.")

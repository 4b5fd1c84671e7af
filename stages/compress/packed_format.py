"""Checkpoints with packed integers in the compressed-tensors format, which transformers and vLLM load."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

from llmrepair.stages.compress.grid import Quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_packed(model: PreTrainedModel, layers: dict[str, Quantised], folder: Path) -> None:
    """Saves a model with some of its linear layers as packed codes, and the rest as it is.

    Args:
        layers: name of a module -> its weight as codes, with scales in the model's dtype.
    """
    state = model.state_dict()
    for name, quantised in layers.items():
        del state[f"{name}.weight"]
        state |= {f"{name}.{part}": tensor for part, tensor in _packed(quantised).items()}
    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    config = _quantization_config(layers.values(), [name for name in linear if name not in layers])
    model.config.quantization_config = config
    model.save_pretrained(folder, state_dict=state)
    del model.config.quantization_config


def _packed(quantised: Quantised) -> dict[str, torch.Tensor]:
    """A layer's tensors as the format names them. Its codes and zero points are signed: ours minus 2**(bits - 1)."""
    bits, half = quantised.bits, 2 ** (quantised.bits - 1)
    tensors = {
        "weight_packed": pack_to_int32((quantised.codes.int() - half).to(torch.int8), bits),
        "weight_scale": quantised.scale,
        "weight_shape": torch.tensor(quantised.codes.shape),
    }
    if not quantised.symmetric:
        zero_point = (quantised.zero_point.int() - half).to(torch.int8)
        tensors["weight_zero_point"] = pack_to_int32(zero_point, bits, packed_dim=0).contiguous()
    return tensors


def _quantization_config(layers: Collection[Quantised], ignore: list[str]) -> dict[str, Any]:
    columns, groups = max((layer.codes.shape[1], layer.scale.shape[1]) for layer in layers)
    strategy = {"strategy": "channel"} if groups == 1 else {"strategy": "group", "group_size": columns // groups}
    some = next(iter(layers))
    weights = QuantizationArgs(num_bits=some.bits, type="int", symmetric=some.symmetric, **strategy)
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        format="pack-quantized",
        quantization_status="compressed",
        ignore=ignore,
    )
    return config.model_dump(mode="json")

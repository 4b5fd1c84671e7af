"""Checkpoints with packed integers in the compressed-tensors format, which transformers and vLLM load."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from safetensors.torch import load_file

from llmrepair.models.expert_files import matrices_in_files, routers_in_files
from llmrepair.models.weight_files import weight_files
from llmrepair.stages.checkpoints.grid import Quantised, shared_group_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_packed(model: PreTrainedModel, layers: dict[str, Quantised], folder: Path) -> None:
    """Saves a model with some of its linear layers as packed codes, and the rest as it is.

    Args:
        layers: name of a module, or of a tensor of experts and an expert's number -> its weight as codes, with scales in the
            model's dtype.
    """
    state, in_files = model.state_dict(), matrices_in_files(model)
    for name, quantised in layers.items():
        owner, _, expert = name.rpartition(".")
        parts = [part.replace("*", expert) for part in in_files.get(owner, [])] or [name]
        state.pop(owner if owner in in_files else f"{name}.weight", None)  # all experts of a tensor are in `layers`
        for part, rows in zip(parts, quantised.split(len(parts)), strict=True):
            state |= {f"{part}.{key}": tensor.cpu() for key, tensor in pack(rows.to(model.device)).items()}
    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    dense = [*(name for name in linear if name not in layers), *routers_in_files(model)]
    config = _quantization_config(layers.values(), dense)
    model.config.quantization_config = config
    model.save_pretrained(folder, state_dict=state)
    del model.config.quantization_config


def read_packed(folder: Path) -> dict[str, Quantised]:
    """The codes of a checkpoint's packed layers by the names of their modules: what `save_packed` was given."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    (group,) = config["config_groups"].values()
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for file in weight_files(folder):
        for key, tensor in load_file(file).items():
            name, _, part = key.rpartition(".")
            layers.setdefault(name, {})[part] = tensor
    bits, symmetric = group["weights"]["num_bits"], group["weights"]["symmetric"]
    return {name: unpack(tensors, bits, symmetric) for name, tensors in layers.items() if "weight_packed" in tensors}


def pack(quantised: Quantised) -> dict[str, torch.Tensor]:
    """A layer's tensors as the format names them. Its codes and zero points are signed: ours minus 2**(bits - 1)."""
    half = 2 ** (quantised.bits - 1)
    codes, zero_point = ((tensor.int() - half).to(torch.int8) for tensor in (quantised.codes, quantised.zero_point))
    tensors = {
        "weight_packed": pack_to_int32(codes, quantised.bits),
        "weight_scale": quantised.scale,
        "weight_shape": torch.tensor(codes.shape),
    }
    if not quantised.symmetric:
        tensors["weight_zero_point"] = pack_to_int32(zero_point, quantised.bits, packed_dim=0).contiguous()
    return tensors


def unpack(tensors: Mapping[str, torch.Tensor], bits: int, symmetric: bool) -> Quantised:
    """The layer that `pack` was given."""
    half, scale = 2 ** (bits - 1), tensors["weight_scale"]
    codes = unpack_from_int32(tensors["weight_packed"], bits, torch.Size(tensors["weight_shape"].tolist()))
    zero_point = torch.zeros(scale.shape, dtype=torch.int8)
    if not symmetric:
        zero_point = unpack_from_int32(tensors["weight_zero_point"], bits, scale.shape, packed_dim=0)
    unsigned = ((tensor.int() + half).to(torch.uint8) for tensor in (codes, zero_point))
    return Quantised(next(unsigned), scale, next(unsigned), bits, symmetric)


def _quantization_config(layers: Collection[Quantised], ignore: list[str]) -> dict[str, Any]:
    group_size = shared_group_size(layers)
    strategy = {"strategy": "channel"} if group_size == -1 else {"strategy": "group", "group_size": group_size}
    some = next(iter(layers))
    weights = QuantizationArgs(num_bits=some.bits, type="int", symmetric=some.symmetric, **strategy)
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        format="pack-quantized",
        quantization_status="compressed",
        ignore=ignore,
    )
    return config.model_dump(mode="json")

"""Checkpoints in the GPTQ format (AutoGPTQ's), which transformers, vLLM and others read; packed by gptqmodel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.gptq import import_gptqmodel, is_installed
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.checkpoints.formats import BITS
from llmrepair.stages.checkpoints.grid import Quantised, shared_group_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROUP_SIZES = (-1, 16, 32, 64, 128, 256, 512, 1024)
_MULTIPLE = 32
_IN_A_BLOCK = re.compile(r"\.\d+\.")


def packages_problem() -> Problem | None:
    """What keeps the format from being read and written at all."""
    if is_installed():
        return None
    return Problem("the GPTQ format needs the packages gptqmodel and optimum", "pip install 'llmrepair[gptq]'")


def reading_problems(model: str, settings: Mapping[str, Any]) -> list[Problem]:
    """What keeps a checkpoint from being read.

    Args:
        model: as the user gave it.
        settings: the `quantization_config` of its config.json.
    """
    version = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    unread = [f"{key} {settings[key]}" for key in ("dynamic", "lm_head") if settings.get(key)]
    unread += [] if settings.get("bits") in BITS else [f"bits {settings.get('bits')}"]
    unread += [] if version in ("gptq", "gptq_v2") else [f"format {version}"]
    problems = []
    if unread:
        hint = "give a checkpoint of one of 2, 3, 4 or 8 bits in the format gptq or gptq_v2 whose output head is dense"
        message = f"`{model}` is a GPTQ checkpoint of a kind that transformers does not read ({', '.join(unread)})"
        problems.append(Problem(message, hint, "model"))
    packages = packages_problem()
    return [*problems, packages] if packages else problems


def format_problems(layers: Mapping[str, tuple[int, ...]], group_size: int) -> list[Problem]:
    """What keeps layers from being held by the format.

    Args:
        layers: rows (output features) and columns (input features) of each layer, by its name in the model.
        group_size: columns that share a scale; -1: a whole row.
    """
    hint = "give --format dense, or compressed-tensors"
    problems = []
    if group_size not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES[:-1]))
        message = f"the GPTQ format does not hold groups of {group_size} columns"
        problems.append(Problem(message, f"give --group-size {sizes} or {GROUP_SIZES[-1]}", "group_size"))
    if odd := sorted({shape for shape in layers.values() if any(size % _MULTIPLE for size in shape)}):
        shapes = " and ".join(f"{rows} x {columns}" for rows, columns in odd)
        problems.append(
            Problem(f"the GPTQ format holds layers in multiples of {_MULTIPLE} rows and columns, not {shapes}", hint, "format")
        )
    if outside := [name for name in layers if not _IN_A_BLOCK.search(name)]:
        names = " and ".join(f"`{name}`" for name in outside)
        problems.append(Problem(f"the GPTQ format holds the layers of transformer blocks only, not {names}", hint, "format"))
    return problems


def save_gptq(model: PreTrainedModel, layers: Mapping[str, Quantised], folder: Path) -> None:
    """Saves a model whose quantised layers are packed, their codes as they are, and all else dense.

    The format's readers hold scales and biases in float16. So scales have to be fitted in float16; the layers' biases are
    rounded to it here, in the file and in the model.

    Args:
        model: its quantised layers hold their dequantised weights.
        layers: every linear layer of the transformer blocks, by its name; one grid for all, its dtype float16.
        folder: gets weights, config.json and quantize_config.json.
    """
    assert all(layer.scale.dtype == torch.float16 for layer in layers.values())
    import_gptqmodel()
    state = model.state_dict()
    for name, layer in layers.items():
        del state[f"{name}.weight"]
        state |= {f"{name}.{key}": tensor for key, tensor in _packed(layer).items()}
        if f"{name}.bias" in state:
            bias = state[f"{name}.bias"]  # shares its memory with the model
            state[f"{name}.bias"] = bias.half()
            bias.copy_(state[f"{name}.bias"])
    settings = _settings(list(layers.values()))
    model.config.quantization_config = settings
    try:
        model.save_pretrained(folder, state_dict=state)
    finally:
        del model.config.quantization_config
    (folder / "quantize_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _settings(layers: list[Quantised]) -> dict[str, Any]:
    return {
        "quant_method": "gptq",
        "bits": layers[0].bits,
        "group_size": shared_group_size(layers),
        "sym": layers[0].symmetric,
        "desc_act": False,
        "checkpoint_format": "gptq" if layers[0].symmetric else "gptq_v2",
    }


def _packed(layer: Quantised) -> dict[str, torch.Tensor]:
    """The layer's tensors `qweight`, `qzeros`, `scales` and `g_idx`.

    Version 1 of the format stores zero points less 1. That cannot hold a zero point of 0, which readers then take for
    different ones; version 2 stores them as they are, but fewer tools read it, so it is for asymmetric grids only.
    """
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    rows, columns = layer.codes.shape
    groups = layer.scale.shape[1]
    packed = TorchLinear(
        bits=layer.bits,
        group_size=columns // groups,
        sym=layer.symmetric,
        desc_act=False,
        in_features=columns,
        out_features=rows,
        register_buffers=True,
    )
    stored_zero = layer.zero_point.int() - int(layer.symmetric)
    # Made for packing only: gptqmodel takes codes from (weight / scale + zero point), and in float32 they come out exact.
    scale = layer.scale.float()
    plain = torch.nn.Linear(columns, rows, bias=False, device="meta")
    steps = layer.codes.float().unflatten(1, (groups, -1)) - stored_zero[..., None]
    plain.weight = torch.nn.Parameter((steps * scale[..., None]).flatten(1), requires_grad=False)
    packed.pack_original(plain, scale, stored_zero, packed.g_idx)  # `pack` and `pack_block` compile C++ first
    return dict(packed.state_dict())

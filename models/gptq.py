"""Checkpoints in the GPTQ format (AutoGPTQ's), by the optional packages gptqmodel and optimum."""

from __future__ import annotations

import logging
import os
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_installed() -> bool:
    """Whether the extra `[gptq]` is there; nothing is imported."""
    return all(find_spec(package) is not None for package in ("gptqmodel", "optimum"))


def import_gptqmodel() -> None:
    """Imports gptqmodel without what that does to the process.

    It prints to standard output, and it sets variables that child processes would inherit: HF_HOME to a folder in /tmp, so
    that they would not find the Hub's cache, and PyTorch's and CUDA's own. Whoever makes a LoRA adapter imports it too: peft
    asks it about each layer, if it is installed.
    """
    before = set(os.environ)
    with redirect_stdout(StringIO()):
        from logbar import LogBar

        LogBar.shared().setLevel(logging.ERROR)
        from gptqmodel.nn_modules.qlinear.torch import _LinearWeightMetadata
    for name in set(os.environ) - before:
        del os.environ[name]
    # transformers starts some weights of GPT-2 by name, and the packed layers' stand-in for a weight lets it fail.
    _LinearWeightMetadata._is_hf_initialized = True


def unpack_layers(model: PreTrainedModel, dense: PreTrainedModel) -> None:
    """Puts a plain layer with the dequantised weight in the place of each packed one.

    Args:
        model: loaded by transformers, packed, with gptqmodel's backend `torch`.
        dense: the same model without weights, whose layers say what a plain layer is.
    """
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    packed = {name: layer for name, layer in model.named_modules() if isinstance(layer, TorchLinear)}
    for name, layer in packed.items():
        # The class's function: the instance's own is wrapped in torch.compile, which takes a minute for the first layer.
        weight = TorchLinear.dequantize_weight(layer).to(model.dtype)  # [columns, rows]
        plain = dense.get_submodule(name)
        transposed = isinstance(plain, torch.nn.Linear)  # and not Conv1D
        plain.weight = torch.nn.Parameter(weight.T.contiguous() if transposed else weight)
        if layer.bias is not None:
            plain.bias = torch.nn.Parameter(layer.bias.to(model.dtype))
        model.set_submodule(name, plain)
    for name, parent in dense.named_modules():  # optimum left them in alphabetical order, which LoRA's random start would show
        children = model.get_submodule(name)._modules
        for child in parent._modules:
            children[child] = children.pop(child)
    model.hf_quantizer.remove_quantization_config(model)  # type: ignore[union-attr, operator]

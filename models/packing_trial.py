"""Whether transformers can read a model whose linear layers are packed, tried out on its shapes: no weights are needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from compressed_tensors.utils import patch_attr
from transformers import PreTrainedModel

from llmrepair.models.loading import compressible_layers


@torch.no_grad()
def packing_obstacle(model: PreTrainedModel) -> str | None:
    """What the compressed-tensors format cannot hold of a model on the meta device; None if it can hold its layers.

    A packed layer has no `weight`. When it reads a checkpoint, transformers has the code of the family initialise the model.
    """
    name = type(model).__name__
    layers = compressible_layers(model).values()
    if others := sorted({type(layer).__name__ for layer in layers if type(layer) is not torch.nn.Linear}):
        return f"the {' and '.join(others)} layers of {name}"
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patch_attr(layer, "_parameters", {"bias": layer.bias}))
        try:
            _initialise(model, model._init_weights)
        except AttributeError:
            return f"the layers of {name}: its code initialises weights that packed layers have not"
    return None


def _initialise(module: torch.nn.Module, of_model: Callable[[torch.nn.Module], None]) -> None:
    """As transformers does: the parts of a model within a model are initialised by its own code."""
    for child in module.children():
        _initialise(child, child._init_weights if isinstance(child, PreTrainedModel) else of_model)
    of_model(module)

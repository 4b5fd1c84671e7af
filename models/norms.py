"""Parameters of norm layers, and biases: what can be tuned of a model without touching a matrix, packed or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch.func import functional_call

from llmrepair.models.training import of_next_tokens, predicting

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from llmrepair.models.training import LogitsOf


def trained_parameters(model: PreTrainedModel, with_biases: bool) -> dict[str, torch.nn.Parameter]:
    """Weights and biases of norms by name, and if asked for the biases of all other layers.

    A norm is a layer whose class is called one, in all families and in code of a model's own. Shapes would not tell: Mamba's D
    is a vector and no norm, and Cohere's norms of queries have a row for each head. The output head has no part, whatever it is
    called: losses are computed with it frozen.
    """
    found = {}
    for name, module in model.named_modules():
        if module is model.get_output_embeddings():
            continue
        is_norm = "norm" in type(module).__name__.lower()
        for own, parameter in module.named_parameters(name, recurse=False):
            if is_norm or (with_biases and own.endswith(".bias")):
                found[own] = parameter
    return found


def logits_with(model: PreTrainedModel, values: Mapping[str, torch.Tensor]) -> LogitsOf:
    """Logits of a model with some of its parameters replaced; gradients flow to `values`, which may be of more precision."""
    dtypes = {name: model.get_parameter(name).dtype for name in values}

    def logits_of(rows: torch.Tensor) -> torch.Tensor:
        rounded = {name: value.to(dtypes[name]) for name, value in values.items()}
        inputs = {"input_ids": rows, "use_cache": False, "logits_to_keep": predicting(rows)}
        return of_next_tokens(functional_call(model, rounded, kwargs=inputs).logits, rows)

    return logits_of


def replace_parameters(model: PreTrainedModel, values: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Writes values into parameters, rounded to the precision of these."""
    for name, value in values.items():
        model.get_parameter(name).data.copy_(value)
    return model

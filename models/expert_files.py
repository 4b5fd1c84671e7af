"""How files name the matrices of experts, which transformers puts together in one tensor when it reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter, revert_weight_conversion

from llmrepair.models.experts import expert_tensors, experts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHT = ".weight"


def matrices_in_files(model: PreTrainedModel) -> dict[str, list[str]]:
    """What stands in files for each tensor that holds a matrix of each expert.

    Returns:
        Name of a tensor -> names of linear layers, with `*` for an expert's number, whose rows together are an expert's matrix.
        A tensor that files hold as it is has none.
    """
    converters = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightConverter)]
    return {name: _matrices(name, converters) for name in expert_tensors(model)}


def expert_weights_in_files(model: PreTrainedModel) -> list[str]:
    """Names of the weights of experts in files that hold each in a tensor of its own."""
    counts = {name: len(tensor) for name, tensor in expert_tensors(model).items()}
    names = [
        f"{part.replace('*', str(expert))}{_WEIGHT}"
        for tensor, parts in matrices_in_files(model).items()
        for part in parts
        for expert in range(counts[tensor])
    ]
    return list(revert_weight_conversion(model, dict.fromkeys(names, torch.empty(0, device="meta"))))


def routers_in_files(model: PreTrainedModel) -> list[str]:
    """Names of the routers that are no linear layers to transformers. Others that read the files, vLLM among them, make them
    some, and have to be told that they are dense."""
    weights = {
        f"{name}{_WEIGHT}": module.weight
        for owner, experts in experts_of(model).items()
        for name, module in model.get_submodule(owner.rpartition(".")[0]).named_modules(prefix=owner.rpartition(".")[0])
        if getattr(module, "weight", None) is not None
        and not isinstance(module, torch.nn.Linear)
        and module.weight.shape[:-1] == (experts.num_experts,)
    }
    return [name.removesuffix(_WEIGHT) for name in revert_weight_conversion(model, weights)]


def _matrices(tensor: str, converters: Iterable[WeightConverter]) -> list[str]:
    for converter in converters:
        (target, *others), sources = converter.target_patterns, converter.source_patterns
        together = [type(operation) for operation in converter.operations]
        is_of_experts = not others and all("*" in source and source.endswith(_WEIGHT) for source in sources)
        if tensor.endswith(target) and is_of_experts and together in ([MergeModulelist], [MergeModulelist, Concatenate]):
            return [tensor.removesuffix(target) + source.removesuffix(_WEIGHT) for source in sources]
    return []

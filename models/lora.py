"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685), in peft's format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.nn import functional

from llmrepair.models import gptq
from llmrepair.models.experts import routers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_FOLDER = "adapter"


def new_adapter(model: PreTrainedModel, rank: int) -> PeftModel:
    """Adapters on every linear layer but the output head, routers of experts, those whose weights kernels take, and those of
    groups; scaled by alpha / rank = 2, no dropout, so runs repeat."""
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    config.exclude_modules = [*_multiplied_by_kernels(model), *sorted(routers_of(model)), *_of_groups(model)] or None
    _tame_peft()
    return _fast_on_gpu(get_peft_model(model, config), model)


def adapter_of(model: PreTrainedModel, terms: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> PeftModel:
    """An adapter that adds B A to the weights of layers; none where the rank is 0.

    Args:
        terms: name of a layer -> B [outputs, rank] and A [rank, inputs].
    """
    ranks = {name: len(shares) for name, (_, shares) in terms.items() if len(shares)}
    highest = max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != highest}
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=highest,
        lora_alpha=highest,
        target_modules=list(ranks),
        rank_pattern=dict(others),
        alpha_pattern=dict(others),  # so that all are scaled by 1
    )
    _tame_peft()
    adapted = get_peft_model(model, config)
    for name in ranks:
        layer = cast("LoraLayer", model.get_submodule(name))
        for linears, matrix in zip((layer.lora_B, layer.lora_A), terms[name], strict=True):
            cast("torch.nn.Linear", linears["default"]).weight.data.copy_(matrix)
    return _fast_on_gpu(adapted, model)


def _multiplied_by_kernels(model: PreTrainedModel) -> list[str]:
    """The last layers of Mamba's mixers: their fused kernels take the weight itself, and would pass an adapter by."""
    mixers = [name for name, module in model.named_modules() if hasattr(module, "conv1d") and hasattr(module, "out_proj")]
    return [f"{name}.out_proj" for name in mixers]


def _of_groups(model: PreTrainedModel) -> list[str]:
    """The layers that are linear by class and multiply groups of inputs by rows of their own, as DeepSeek-V4's attention does:
    an adapter, which maps each input to all outputs, does not fit beside one."""
    linear = ((name, each) for name, each in model.named_modules() if isinstance(each, torch.nn.Linear))
    return [name for name, each in linear if type(each).forward is not torch.nn.Linear.forward and not _maps_inputs(each)]


def _maps_inputs(layer: torch.nn.Linear) -> bool:
    """Whether it makes outputs [., outputs] of inputs [., inputs]."""
    try:
        made = layer(layer.weight.new_zeros(1, layer.in_features))
    except RuntimeError:
        return False
    return isinstance(made, torch.Tensor) and made.shape == (1, layer.out_features)


def save_adapter(adapted: PeftModel, folder: Path, base_model: str) -> None:
    """Writes the adapter, of LoRA or another of peft's methods, with `base_model` noted in it as what it was tuned on."""
    config = adapted.peft_config["default"]
    config.base_model_name_or_path = base_model
    if isinstance(config, LoraConfig) and config.target_modules is not None:
        config.target_modules = sorted(config.target_modules)  # a set, whose order would differ from process to process
    adapted.save_pretrained(str(folder / ADAPTER_FOLDER), safe_serialization=True)
    (folder / ADAPTER_FOLDER / "README.md").unlink()  # an empty form, but for the path that the model was loaded from


def with_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The model with a saved adapter beside its weights, not merged into them: they may be sparse."""
    _tame_peft()
    adapted = _fast_on_gpu(PeftModel.from_pretrained(model, str(adapter)), model).eval()
    return cast("PreTrainedModel", adapted.get_base_model())


def with_merged_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The model with a saved adapter added to its weights; the sum is taken in float32 and rounded once to their precision."""
    _tame_peft()
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])
    return cast("PreTrainedModel", merged).eval().requires_grad_(False)


def _fast_on_gpu(adapted: PeftModel, model: PreTrainedModel) -> PeftModel:
    """Of a model in bfloat16 on a GPU, adapters multiply in its precision; their weights stay in float32."""
    if model.device.type == "cuda" and model.dtype == torch.bfloat16:
        _multiply_as_inputs_are(adapted)
    return adapted


def _multiply_as_inputs_are(adapted: PeftModel) -> None:
    """Peft copies the inputs of each layer to float32: for small products, twice as much is kept and moved as by the model."""
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = False
            for linear in (*layer.lora_A.values(), *layer.lora_B.values()):
                vars(linear)["forward"] = partial(_product, linear)


def _product(linear: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    weight = cast("torch.Tensor", linear.weight)
    return functional.linear(inputs, weight.to(inputs.dtype))


def _tame_peft() -> None:
    """Peft asks gptqmodel, where it is installed, about each layer."""
    if gptq.is_installed():
        gptq.import_gptqmodel()

"""Loading models: dense or compressed, always from safetensors, always ready for gradients."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from llmrepair.models.checkpoint import Misfit
from llmrepair.models.experts import routers_of
from llmrepair.models.failures import WrongFile
from llmrepair.models.gptq import import_gptqmodel, unpack_layers
from llmrepair.models.postponed import postponed

with postponed():
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        PreTrainedModel,
        PreTrainedTokenizerFast,
    )
    from transformers.pytorch_utils import Conv1D
    from transformers.utils.hub import cached_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_SAMPLING = ("temperature", "top_p", "min_p", "top_h", "typical_p", "top_k", "epsilon_cutoff", "eta_cutoff")
"""Settings of generation that have an effect on sampling alone."""
_KIND = re.compile(r'"model":\s*\{\s*"type":\s*"(\w+)"')
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def load_model(
    location: str, revision: str | None, dtype: str, device: torch.device, trust_remote_code: bool = False
) -> PreTrainedModel:
    """A causal LM in evaluation mode with frozen weights.

    Packed weights are dequantised at once. A packed linear layer of compressed-tensors has no `weight` before its first
    forward pass, which breaks LoRA and calls of inner modules, and unpacks for good in that pass anyway; one of gptqmodel
    never has any, and its default backend returns wrong gradients.

    Args:
        location: folder or Hub id.
        revision: commit hash of a Hub id.
        dtype: name of a torch dtype.

    Raises:
        WrongFile: the files lack a tensor, or hold one of another shape: transformers would draw it at random.
    """
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(location, **options)
    quantisation = getattr(config, "quantization_config", None) or {}
    is_gptq = quantisation.get("quant_method") == "gptq"
    if is_gptq:
        import_gptqmodel()
        options["config"] = config
        quantisation["backend"] = "torch"
    elif quantisation:
        from transformers import CompressedTensorsConfig

        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    if device.type == "cuda" and not is_gptq:
        options["device_map"] = {"": device}  # read and unpacked there: neither the CPU's speed nor its memory counts
    model = _loaded_whole(location, getattr(torch, dtype), options)
    if is_gptq:
        unpack_layers(model, meta_model(location, revision, trust_remote_code))
    elif quantisation:
        forget_quantisation(model)
    _make_saveable(model)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans for half a second for each shape, and no two batches are alike
    model.to(device)  # type: ignore[arg-type]
    return model.eval().requires_grad_(False)


def _loaded_whole(location: str, dtype: torch.dtype, options: dict[str, Any]) -> PreTrainedModel:
    """A model whose every tensor comes from its files."""
    asked = {**options, "use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(location, dtype=dtype, **asked)
    model, info = loaded
    if wrong := str(Misfit.of(info)):
        raise WrongFile(f"the weights of `{location}` do not fit: {wrong}", "copy or download the model again")
    return cast("PreTrainedModel", model)


def _make_saveable(model: PreTrainedModel) -> None:
    """Takes away what only sampling reads from settings that do not sample, as those of Llama 2 chat were shipped: nothing
    changes by it, and transformers refuses to save a model that has both. Of settings that it refuses for anything else the
    special tokens stay. Nor does it save a model that was asked for attentions which its kernel never has."""
    model.config.output_attentions = False
    settings, defaults = model.generation_config, GenerationConfig()
    if settings is None:
        return
    if not settings.do_sample:
        for name in _SAMPLING:
            setattr(settings, name, getattr(defaults, name, None))
    try:
        settings.validate(strict=True)
    except ValueError:
        ids = {name: getattr(settings, name) for name in _SPECIAL_IDS}
        model.generation_config = GenerationConfig(**{n: i for n, i in ids.items() if not (isinstance(i, int) and i < 0)})


def forget_quantisation(model: PreTrainedModel) -> None:
    """Takes away the scales and wrappers of compressed-tensors from layers whose weights are plain numbers.

    What unpacks them leaves the parameters of all modules in caches, which `to` passes over: they would stay on their device.
    Of any other module it would take away the decorators of `forward`, and what happens to be called as a scale of theirs.
    """
    from compressed_tensors.offload import remove_dispatch
    from compressed_tensors.quantization import QuantizationMetadata

    remove_dispatch(model)
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            QuantizationMetadata.clear_quantization(module)


def load_tokenizer(location: str, revision: str | None, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A model's tokenizer, of the kind that its tokenizer.json is of.

    transformers takes that of Qwen2 for every model of that family: of words it made byte pairs without a merge.
    """
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(location, **options)
    file = cached_file(location, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    kind = _KIND.search(Path(file).read_text(encoding="utf-8")) if file else None
    made = getattr(tokenizer, "backend_tokenizer", None)
    if kind is None or made is None or type(made.model).__name__ == kind[1]:
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(location, **options)


@lru_cache(maxsize=8)
def meta_model(location: str, revision: str | None, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model's modules and shapes without any weights, the same for all who ask."""
    config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def compressible_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear | Conv1D]:
    """The linear layers that compression touches, by name: those of the blocks. What stands before and behind them stays
    dense as embeddings do: the output head, and projections such as those of OPT-350m. So do the routers of experts, whose
    own matrices are among the layers as long as they are layers (`experts_as_layers`)."""
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D))
    routers = routers_of(model)
    return {n: layer for n, layer in layers if n not in routers and any(part.isdigit() for part in n.split("."))}


def weight_matrix(layer: torch.nn.Module) -> torch.Tensor:
    """A linear layer's weight as [outputs, inputs]; a view where the layer keeps it the other way round, as GPT-2's do."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight.T if isinstance(layer, Conv1D) else weight


def share_of_zeros(model: PreTrainedModel) -> float:
    """Among the weights that compression touches."""
    weights = [layer.weight for layer in compressible_layers(model).values()]
    count = sum(weight.numel() for weight in weights)
    nonzero = sum(int(torch.count_nonzero(weight)) for weight in weights)  # a comparison takes seven times as long
    return (count - nonzero) / count


def layer_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Outputs and inputs of each compressible layer, by name."""
    return {name: tuple(weight_matrix(layer).shape) for name, layer in compressible_layers(model).items()}


def causal_architectures() -> frozenset[str]:
    """Class names, as in a config.json's `architectures`, that transformers loads as causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names: set[str] = set()
    for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names |= {value} if isinstance(value, str) else set(value)
    return frozenset(names)

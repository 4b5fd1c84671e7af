"""Families of models that llama.cpp computes as transformers does: their settings, and how their weights lie in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedConfig, PreTrainedModel

_SHARED_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Family:
    """How one differs from others.

    Attributes:
        architecture: as the `gguf` package knows it.
        given: settings that a file has no field for, and what llama.cpp takes them to be.
        period: of so many layers the last attends to all of a text, the others to a window; 0: all of them alike.
        is_rotated_in_pairs: rows of the query and key weights that are rotated together are neighbours.
        norms_begin_at: what is added to the weights of norms.
    """

    architecture: MODEL_ARCH
    given: Mapping[str, Any] = field(default_factory=dict)
    period: int = 0
    is_rotated_in_pairs: bool = False
    norms_begin_at: int = 0


_SWIGLU = {"hidden_act": "silu"}
_NO_BIAS = {"attention_bias": False}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, **_NO_BIAS}
_UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
FAMILIES = {
    "llama": Family(MODEL_ARCH.LLAMA, {**_SWIGLU, **_NO_BIAS, "mlp_bias": False}, is_rotated_in_pairs=True),
    "qwen2": Family(MODEL_ARCH.QWEN2, {**_SWIGLU, "use_sliding_window": False}),
    "qwen3": Family(MODEL_ARCH.QWEN3, {**_SWIGLU, **_NO_BIAS, "use_sliding_window": False}),
    "gemma2": Family(MODEL_ARCH.GEMMA2, _GEMMA, period=2, norms_begin_at=1),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, _GEMMA | _UNCAPPED, period=6, norms_begin_at=1),
    "phi3": Family(MODEL_ARCH.PHI3, _SWIGLU),
}
"""By the `model_type` of a config.json."""
_LOCAL_ROPE = 10_000.0
"""Base of the rotary positions in layers with a window, where a model has two."""


def family_problem(config: PreTrainedConfig) -> str | None:
    """What keeps llama.cpp from computing what a model of such settings does, in a few words."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        return f"its family is `{config.model_type}`, and {', '.join(FAMILIES)} can be written"
    for name, value in {**family.given, **_given_by_others(config, family)}.items():
        if getattr(config, name, value) != value:
            return f"its `{name}` is {getattr(config, name)}, for which the format has no field"
    if config.model_type == "gemma2" and None in (getattr(config, name) for name in _UNCAPPED):
        return "its logits are not capped, which the format does not hold of this family"
    ropes = _ropes(config)
    if any(rope["rope_type"] != "default" for rope in ropes.values()):
        return "its positions are scaled, which cannot be checked by reading the file back"
    if ropes.get("sliding_attention", {}).get("rope_theta", _LOCAL_ROPE) != _LOCAL_ROPE:
        return "its local layers have a `rope_theta` of their own, for which the format has no field"
    return None


def _given_by_others(config: PreTrainedConfig, family: Family) -> dict[str, Any]:
    """Settings whose only value follows from others."""
    if not family.period:
        return {}
    layers = range(1, config.num_hidden_layers + 1)
    types = ["sliding_attention" if layer % family.period else "full_attention" for layer in layers]
    return {"layer_types": types, "query_pre_attn_scalar": head_size(config)}


def _ropes(config: PreTrainedConfig) -> dict[str, Mapping[str, Any]]:
    """Rotary positions by the type of layers."""
    found = config.rope_parameters
    return {"full_attention": found} if "rope_theta" in found else found


def head_size(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def add_settings(writer: GGUFWriter, config: PreTrainedConfig) -> None:
    rope, size = _ropes(config)["full_attention"], head_size(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(int(size * rope.get("partial_rotary_factor", 1)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if config.model_type == "phi3" or FAMILIES[config.model_type].period:
        writer.add_sliding_window(config.sliding_window or 0)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def names_of(model: PreTrainedModel) -> dict[str, str]:
    """What each tensor of a model is called in a file."""
    config = model.config
    known = get_tensor_name_map(FAMILIES[config.model_type].architecture, config.num_hidden_layers)
    names = [name for name in model.state_dict() if not (name == _SHARED_HEAD and config.tie_word_embeddings)]
    return {name: str(known.get_name(name, try_suffixes=(".weight", ".bias"))) for name in names}


def arrangement(config: PreTrainedConfig, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """From the rows of a tensor as transformers has them to those of a file."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None or not FAMILIES[config.model_type].is_rotated_in_pairs:
        return lambda tensor: tensor
    return lambda tensor: tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(tensor.shape)


def architecture_name(config: PreTrainedConfig) -> str:
    return MODEL_ARCH_NAMES[FAMILIES[config.model_type].architecture]

"""A tiny random model of each causal family that transformers knows, and what becomes of it on the command line."""

from __future__ import annotations

import contextlib
import io
import json
import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from llmrepair.lab.tokenizer import make_tokenizer
from tests.child import HERE

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_MOST_WEIGHTS = 2_000_000
_POSITIONS = 256
_SAME_SIZES: dict[int | float, str] = {
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers num_experts_per_tok moe_topk "
    "num_experts_per_token",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads num_decoder_attention_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts linear_num_value_heads conv_kernel d_conv",
    1: "encoder_layers num_encoder_layers n_group topk_group first_k_dense_replace mamba_n_groups n_groups num_shared_experts "
    "n_shared_experts",
    8: "mamba_n_heads mamba_num_heads qk_nope_head_dim mamba_d_state state_size mamba_state_size ssm_state_size rotary_dim",
    16: "head_dim index_head_dim v_head_dim kv_lora_rank q_lora_rank attention_head_dim mamba_d_head mamba_head_dim "
    "linear_key_head_dim linear_value_head_dim kv_channels",
    32: "moe_intermediate_size shared_expert_intermediate_size moe_ffn_hidden_size moe_shared_expert_intermediate_size",
    64: "hidden_size d_model n_embd embed_dim embedding_size word_embed_proj_dim lru_width attention_hidden_size",
    128: "mamba_d_ssm intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner d_ff d_inner ffn_hidden_size "
    "shared_intermediate_size intermediate_size_mlp",
    _POSITIONS: "max_position_embeddings n_positions max_seq_len n_ctx max_sequence_length max_target_positions",
    0.0: "dropout attention_dropout hidden_dropout activation_dropout resid_pdrop embd_pdrop attn_pdrop hidden_dropout_prob "
    "attention_probs_dropout_prob",
}
_SIZES: dict[str, Any] = {name: size for size, names in _SAME_SIZES.items() for name in names.split()} | {
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 0,
    "linear_num_key_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "is_decoder": True,
    "initializer_range": 0.1,
}
_LATENT_ATTENTION = {"qk_rope_head_dim": 8, "head_dim": 8, "num_key_value_heads": 4}
_OF_FAMILIES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"], "intermediate_size": 128},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "prophetnet": {"num_encoder_layers": 2},  # as many as it decodes with: its cache counts these
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "xlstm": {"hidden_size": 128},  # its cache rounds a half of it up to 64
    "zaya": {"num_experts_per_tok": 1},
    **{
        name: {"layer_types": ["linear_attention", "full_attention"]}
        for name in "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next".split()
    },
    **{
        name: {
            "layer_types": ["linear_attention", "qwen_sparse_attention"],
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 32,
            "indexer_compress_ratio": 8,
        }
        for name in ("qwen4_exp", "qwen4_exp_text")
    },
}
"""What the sizes above do not make of a family."""


class NotTiny(Exception):
    """A family that no few sizes make small."""


def tiny_config(model_type: str, vocabulary: int) -> PreTrainedConfig:
    kind = CONFIG_MAPPING[model_type]
    return kind(
        **_sizes(kind, {"vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary, **_OF_FAMILIES.get(model_type, {})})
    )


def _sizes(kind: type[PreTrainedConfig], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the fields that a config has, also of those of the configs in it."""
    known = {each.name for each in fields(kind)} | kind.attribute_map.keys()
    of_kind = _SIZES | (_LATENT_ATTENTION if "qk_rope_head_dim" in known else {})
    sizes = {name: size for name, size in {**of_kind, **more}.items() if name in known}
    return sizes | {name: _sizes(inner, more) for name, inner in kind.sub_configs.items() if inner in CONFIG_MAPPING.values()}


def tiny_model(model_type: str, vocabulary: int) -> PreTrainedModel:
    """
    Raises:
        NotTiny: it has too many weights, or its config takes other sizes.
    """
    try:
        config = tiny_config(model_type, vocabulary)
        with torch.device("meta"):
            weights = sum(each.numel() for each in AutoModelForCausalLM.from_config(config).parameters())
    except Exception as error:
        raise NotTiny(f"{type(error).__name__}: {error}") from error
    if weights > _MOST_WEIGHTS:
        raise NotTiny(f"{weights:,} weights")
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval().requires_grad_(False)


def tiny_folder(folder: Path, model_type: str) -> Path:
    """The model in a folder, with the tokenizer of the lab's words."""
    tokenizer = make_tokenizer(_POSITIONS)
    tiny_model(model_type, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_FEW = "--calibration lab --samples 8 --seq-len 32 --tasks lab_qa,lab_mc --limit 2 --batch-size 2 --device cpu"
_SHORT = "--method none --tuning-data lab --tuning-samples 20 --tuning-seq-len 32 --budget 1024 --learning-rates 0.01"
ASKED = {
    "rtn": f"--method rtn --bits 8 {_FEW}",
    "gptq": f"--method gptq --bits 8 --format dense {_FEW}",
    "prompt": f"--recovery prompt --lengths 4 {_SHORT} {_FEW}",
    "idp": f"--recovery idp --lengths 4,4 {_SHORT} {_FEW}",
    "lora": f"--recovery lora {_SHORT} {_FEW}",
}
"""What `llmrepair eval` is asked of each family."""


class Outcome(NamedTuple):
    """How a command ended: `works`, `refused` before work, or `BUG`, and what it said."""

    state: str
    said: str = ""


def outcome(folder: Path, runs: Path, asked: str) -> Outcome:
    """Of one of `ASKED`, through the real command line in this process."""
    from llmrepair.cli.main import run
    from llmrepair.stages.checkpoints import reload

    reload.subprocess = HERE  # type: ignore[assignment]
    out, err = io.StringIO(), io.StringIO()
    line = ["eval", "--model", str(folder), "--runs", str(runs), "--json", *ASKED[asked].split()]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(line)
    except Exception as error:
        return Outcome("BUG", "".join(traceback.format_exception(error)))
    said = json.loads(out.getvalue())
    problems = " ".join(problem["message"] for problem in said.get("errors", []))
    return Outcome({0: "works", 2: "refused"}.get(code, "BUG"), problems)

"""GGUF files of tiny models, with vocabularies that are trained here on this repository's own English."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SIZE = 1500
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"{part}_proj": f"attn_{part if part != 'o' else 'output'}" for part in "qkvo"},
    **{f"{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}
"""Last name of a module -> the name of its weight in the file."""


@cache
def english() -> str:
    """Without what is no English: code, links, tables."""
    lines = [line for page in sorted((ROOT / "docs").rglob("*.md")) for line in page.read_text().splitlines()]
    return "\n".join(line for line in lines if line[:1].isalpha() and not set("`|<[{") & set(line))


@cache
def trained(kind: str) -> Tokenizer:
    """Byte-level BPE (`gpt2`), SentencePiece BPE (`llama`), or SentencePiece unigram (`t5`)."""
    shared: dict[str, Any] = {"vocab_size": SIZE, "special_tokens": SPECIAL + BYTES * (kind != "gpt2"), "show_progress": False}
    if kind == "gpt2":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **shared)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True) if kind == "llama" else models.Unigram())
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        trainer = trainers.BpeTrainer(**shared) if kind == "llama" else trainers.UnigramTrainer(unk_token="<unk>", **shared)
    tokenizer.train_from_iterator(english().splitlines(), trainer)
    return _with_short_scores(tokenizer) if kind == "t5" else tokenizer


def _with_short_scores(tokenizer: Tokenizer) -> Tokenizer:
    """Scores that float32 holds exactly: of ways to cut a text that are as likely, rounding would choose another one."""
    document = json.loads(tokenizer.to_str())
    document["model"]["vocab"] = [[token, round(score * 1024) / 1024] for token, score in document["model"]["vocab"]]
    return Tokenizer.from_str(json.dumps(document))


def fields_of(kind: str) -> dict[str, Any]:
    """The fields of a vocabulary, as in a file."""
    model = json.loads(trained(kind).to_str())["model"]
    vocabulary = model["vocab"] if kind == "t5" else [[token, 0.0] for token in model["vocab"]]
    tokens = [token for token, _ in vocabulary]
    fields: dict[str, Any] = {"model": kind, "tokens": tokens, "token_type": list(map(_type, tokens))}
    fields |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    if kind == "gpt2":
        fields |= {"pre": "gpt-2", "merges": [" ".join(merge) for merge in model["merges"]]}
    else:
        scores = [score for _, score in vocabulary] if kind == "t5" else [-float(number) for number in range(len(tokens))]
        fields |= {"scores": scores, "add_space_prefix": True}
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()} | {"tokenizer.chat_template": CHAT}


def _type(token: str) -> int:
    if token in SPECIAL:
        return TokenType.UNKNOWN if token == "<unk>" else TokenType.CONTROL
    return TokenType.BYTE if token in BYTES else TokenType.NORMAL


def tiny_llama(kind: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    size = len(fields_of(kind)["tokenizer.ggml.tokens"])
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=size, **sizes, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, head_dim=16
    )
    return LlamaForCausalLM(config).eval()


def write_gguf(
    path: Path,
    kind: str,
    stored: GGMLQuantizationType = GGMLQuantizationType.F32,
    fields: Mapping[str, Any] = MappingProxyType({}),
    without: str = "lm_head.weight",
) -> LlamaForCausalLM:
    """A file of a random Llama, whose matrices are stored as `stored`; returns the model with the values that are in it."""
    model = tiny_llama(kind)
    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    for name, value in (fields_of(kind) | fields).items():
        _add(writer, name, value)
    for name, weight in model.state_dict().items():
        if name not in ("lm_head.weight", without):
            _add_weight(writer, config, name, weight, stored if weight.ndim == 2 else GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(name, value)
    elif isinstance(value, bool):
        writer.add_bool(name, value)
    else:
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)


def _add_weight(writer: GGUFWriter, config: LlamaConfig, name: str, weight: torch.Tensor, stored: GGMLQuantizationType) -> None:
    """As llama.cpp has them: rotated halves of a head stand beside each other. `weight` becomes what is stored."""
    parts = name.split(".")
    block = f"blk.{parts[2]}." if "layers" in parts else ""
    weight.copy_(torch.from_numpy(quants.dequantize(quants.quantize(weight.numpy(), stored), stored)))
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(parts[-2])
    beside = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape) if heads else weight
    data = quants.quantize(beside.numpy(), stored)
    writer.add_tensor(f"{block}{_NAMES[parts[-2]]}.weight", data, raw_dtype=stored)

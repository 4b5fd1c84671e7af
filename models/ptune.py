"""Prefix tuning (Li and Liang 2021, arXiv 2101.00190) and p-tuning (Liu et al. 2021, arXiv 2103.10385), trained through peft.

What prefix tuning finds are keys and values of n virtual tokens in each layer; what p-tuning finds is a soft prompt, once its
encoder is folded away. Either is a `PromptCache` of one prompt, so it is evaluated by what evaluates prompts.

What texts begin with stands in front of p-tuning's prompt, as of any other. In front of a prefix nothing can stand: it is no
vectors that would look back, but keys and values that all tokens see, the one that begins a text among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from peft import PeftConfig, PeftModel, PeftType, PrefixTuningConfig, PromptEncoderConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file

from llmrepair.models.prompt_cache import Opening, PromptCache, build_prompt_cache, opening
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.soft_prompt import behind
from llmrepair.models.training import LogitsOf, of_next_tokens, predicting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["prefix", "p-tuning"]
INDEX_FILE = "prompt.json"
"""Beside an adapter in front of which BOS stands: says which token that is."""
_WEIGHTS_FILE, _WEIGHTS_NAME = "adapter_model.safetensors", "prompt_embeddings"  # peft's


def new_ptune(model: PreTrainedModel, kind: Kind, tokens: int) -> PeftModel:
    """A model behind `tokens` virtual tokens; p-tuning's encoder, as wide as the model, starts at random."""
    shared: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": tokens}
    if kind == "prefix":
        return get_peft_model(model, PrefixTuningConfig(**shared))
    return get_peft_model(model, PromptEncoderConfig(**shared, encoder_hidden_size=model.config.hidden_size))


def ptune_logits(adapted: PeftModel, begin: Opening | None = None) -> LogitsOf:
    """Logits of rows behind the virtual tokens, by peft's own forward pass.

    Args:
        begin: of p-tuning, what all rows begin with: peft would put the prompt in front of it.
    """
    config = adapted.active_peft_config
    offset = 0 if config.peft_type == PeftType.PREFIX_TUNING else config.num_virtual_tokens  # p-tuning's are in the sequence

    def logits_of(rows: torch.Tensor) -> torch.Tensor:
        if begin is not None:
            prompt, model = adapted.get_prompt(batch_size=1)[0], cast("PreTrainedModel", adapted.get_base_model())
            return prompt_logits(model, prompt, offset, begin)(rows)
        keep = predicting(rows, offset)
        return of_next_tokens(adapted(input_ids=rows, attention_mask=torch.ones_like(rows), logits_to_keep=keep).logits, rows)

    return logits_of


@torch.no_grad()
def prefix_of_prompt(model: PreTrainedModel, prompt: torch.Tensor) -> torch.Tensor:
    """The prefix [n, 2 * layers * H * D] that a prompt [n, E] amounts to: activations of real words are where a prefix starts
    best (Li and Liang, section 7.4)."""
    layers = build_prompt_cache(model, [prompt.to(model.dtype)]).layers
    states = [states[0].transpose(0, 1) for keys_and_values in layers for states in keys_and_values]  # [n, H, D] each
    return torch.stack(states, dim=1).flatten(1).float()


def load_ptune(model: PreTrainedModel, adapter: Path) -> tuple[PromptCache, int]:
    """The cached virtual tokens of a saved adapter, and how many parameters these are."""
    config = PeftConfig.from_pretrained(str(adapter))
    values = load_file(adapter / _WEIGHTS_FILE)[_WEIGHTS_NAME]
    bos = bos_of(adapter)
    values = values if bos is None else values[1:]
    states = values.to(model.device, model.dtype)
    if isinstance(config, PrefixTuningConfig):
        return _prefix_cache(states, config), values.numel()
    with torch.no_grad():
        return build_prompt_cache(model, [states], begin=opening(model, bos)), values.numel()


def put_behind(begin: Opening, adapter: Path) -> None:
    """Makes a saved adapter of p-tuning put its prompt behind what texts begin with; it is then for texts without that."""
    prompt = load_file(adapter / _WEIGHTS_FILE)[_WEIGHTS_NAME]
    save_file({_WEIGHTS_NAME: behind(begin, prompt)}, adapter / _WEIGHTS_FILE, metadata={"format": "pt"})
    config: Any = PeftConfig.from_pretrained(str(adapter))
    config.num_virtual_tokens += 1
    config.save_pretrained(str(adapter))
    (adapter / INDEX_FILE).write_text(json.dumps({"bos": begin.token}) + "\n", encoding="utf-8")


def bos_of(adapter: Path) -> int | None:
    """The token that stands in front of a saved adapter's prompt."""
    index = adapter / INDEX_FILE
    found: int | None = json.loads(index.read_text(encoding="utf-8"))["bos"] if index.exists() else None
    return found


def _prefix_cache(prefix: torch.Tensor, config: PrefixTuningConfig) -> PromptCache:
    """Keys and values from a prefix [n, 2 * layers * H * D]; `token_dim` and `num_attention_heads` are those of the keys."""
    states = prefix.unflatten(1, (config.num_layers, 2, config.num_attention_heads, -1))  # [n, layers, 2, H, D]
    layers = [(keys[None], values[None]) for keys, values in states.permute(1, 2, 3, 0, 4)]
    return PromptCache(layers, torch.ones(1, len(prefix), dtype=torch.bool, device=prefix.device))

"""Tiny models, tokenizers and repairs, each with the reference that is asked beside it. All are made once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmrepair.models.harness import RepairedLM
from llmrepair.models.lora import new_adapter
from llmrepair.models.prompt_cache import build_prompt_cache, opening
from llmrepair.models.routing import Router, see_pool_by_token
from llmrepair.models.selection import DocumentSelector, EnsembleSelector, TokenSelector
from llmrepair.models.text import beginning
from llmrepair.stages.repairs.behind_text import behind_text
from llmrepair.stages.repairs.placed import Placed, Placing
from llmrepair.stages.repairs.texts import prompt_tokens
from tests.differential.reference import Reference
from tests.models.byte_tokenizer import BOS, EOS, byte_tokenizer
from tests.models.test_tree_attention import random_model
from tests.stages.compress.test_families import FAMILIES

SOME_FAMILIES = ("llama", "qwen3", "gemma2", "gemma3", "opt", "gpt2", "gpt_neox", "phi")
TOKENIZERS = ("adds nothing", "begins", "ends", "begins and ends", "no pad", "one token for both", "SentencePiece")
REPAIRS = ("none", "soft prompt", "chosen prompts", "ensemble", "prompts by token", "lora", "hard text")
WORDS, POSITIONS, HIDDEN = 400, 128, 32
LONG = 19  # tokens of a prompt: more than the window of Gemma's local attention
HARD_TEXT = "it is working: hello world 中国"
MOST_DOCUMENTS = 8
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class Case:
    family: str
    tokenizer: str
    repair: str
    batch_size: int | None

    def ours(self) -> RepairedLM:
        placed, _ = repaired(self.family, self.tokenizer, self.repair)
        taken = (placed.pool.length if placed.pool is not None else 0) + (placed.last is not None)
        tokenizer = tokenizer_of(self.tokenizer)
        longest = POSITIONS - taken
        return RepairedLM(placed.model, tokenizer, self.batch_size, longest, placed.cache, placed.selector, placed.last)

    def reference(self, document: int) -> Reference:
        _, references = repaired(self.family, self.tokenizer, self.repair)
        return references[document % len(references)]


@cache
def repaired(family: str, tokenizer_name: str, repair: str) -> tuple[Placed, Sequence[Reference]]:
    """A repair in place, and references of which document n has number n, modulo how many there are."""
    model, tokenizer = model_of(family), tokenizer_of(tokenizer_name)
    alone = Reference(model, tokenizer, POSITIONS)
    if repair == "soft prompt":
        (prompt,), begin = prompts_of(4), opening(model, beginning(tokenizer))
        cache = build_prompt_cache(model, [prompt], begin=begin)
        return Placed(model, cache, last=cache.bos), [behind(alone, 4, prompt)]
    if repair in ("chosen prompts", "ensemble", "prompts by token"):
        return pooled(model, alone, repair)
    if repair == "lora":
        adapted, merged = (adapted_copy(family) for _ in range(2))
        return Placed(adapted.get_base_model()), [alone._replace(model=merged.merge_and_unload())]
    if repair == "hard text":
        placing = Placing(model, tokenizer, None, None, 0, scoring=lambda pool: lambda texts: [])
        front = alone.tokens(HARD_TEXT + "\n\n")
        placed = behind_text(placing, prompt_tokens(HARD_TEXT, tokenizer))
        return placed, [alone._replace(longest=POSITIONS - len(front), front=front)]
    return Placed(model), [alone]


def behind(alone: Reference, position: int, prompt: torch.Tensor) -> Reference:
    """With a prompt that ends where inputs begin, behind what the tokenizer begins texts with."""
    front = [bos] if (bos := beginning(alone.tokenizer)) is not None else []
    return alone._replace(longest=POSITIONS - position - len(front), front=front, prompt=prompt, start=position - len(prompt))


def pooled(model: PreTrainedModel, alone: Reference, repair: str) -> tuple[Placed, Sequence[Reference]]:
    """Two prompts, of which the short one stands where the long one ends."""
    prompts, begin = prompts_of(4, LONG), opening(model, beginning(alone.tokenizer))
    references = [behind(alone, LONG, prompt) for prompt in prompts]
    if repair == "prompts by token":
        ours, eager = copy.deepcopy(model), copy.deepcopy(model)
        eager.set_attn_implementation("eager")
        router = Router(ours, build_prompt_cache(ours, prompts, begin=begin))
        see_pool_by_token(router)
        both = references[0]._replace(model=eager, prompt=None, members=references)
        return Placed(ours, router.cache, TokenSelector(router, 4), router.cache.bos), [both._replace(pool=both.side_by_side())]
    cache = build_prompt_cache(model, prompts, begin=begin)
    if repair == "ensemble":
        return Placed(model, cache, EnsembleSelector(), cache.bos), [references[0]._replace(prompt=None, members=references)]
    chosen = DocumentSelector({("task", document): document % 2 for document in range(MOST_DOCUMENTS)})
    return Placed(model, cache, chosen, cache.bos), references


def prompts_of(*lengths: int) -> list[torch.Tensor]:
    return [torch.randn(length, HIDDEN, generator=torch.Generator().manual_seed(length)) for length in lengths]


@cache
def model_of(family: str) -> PreTrainedModel:
    name, sizes = FAMILIES[family]
    # Gemma 2's cap on scores is left out, for transformers does so with its fast attention, and with the eager one not
    return random_model(name, **sizes | {"vocab_size": WORDS, "attn_logit_softcapping": None})


def adapted_copy(family: str) -> Any:
    """With an adapter that changes what it says; the same one each time."""
    adapted = new_adapter(copy.deepcopy(model_of(family)), rank=2)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapted.eval().requires_grad_(False)


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    adds = {"begins": "<s> $A", "ends": "$A </s>", "begins and ends": "<s> $A </s>"}.get(name, "$A")
    tokenizer: PreTrainedTokenizerBase = sentencepiece() if name == "SentencePiece" else byte_tokenizer(adds)
    if name == "no pad":
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer()._tokenizer, bos_token="<s>", eos_token="</s>")
    if name == "one token for both":  # as GPT-2's
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer()._tokenizer, bos_token="</s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space in front of each text, bytes of what it does not know, a beginning, no padding."""
    words = ["▁hello", "▁world", "▁wor", "king", "▁on", "▁it", "▁is", "ing", "▁today", "中国", "首都", "▁:", "..", "▁▁▁"]
    special = {"<s>": BOS, "</s>": EOS, "<unk>": 2}
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [character for word in words for character in word] + [word[:end] for word in words for end in range(2, 9)]
    vocabulary = special | {piece: 3 + place for place, piece in enumerate(dict.fromkeys(pieces))}
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    core = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(dict.fromkeys(merges)), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")

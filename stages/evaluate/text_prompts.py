"""Baselines that need no tuning: a text in front of every input, one that is given or examples from the tuning text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from llmrepair.stages.sources import load_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIZES: Mapping[str, Mapping[str, Any]] = {
    "small": {"hard_prompt": "Answer carefully:", "icl_examples": 1},
    "medium": {
        "hard_prompt": "Your weights were compressed, and that has damaged some of what you know. "
        "Think back to what you learned, and answer carefully.",
        "icl_examples": 4,
    },
    "large": {
        "hard_prompt": "You are a language model whose weights were compressed: they were rounded to fewer bits, or many "
        "of them were set to zero. That has damaged you. Some of what you learned does not come to mind as easily as "
        "before, but most of it is still there. Do not give the first answer that comes up. Recall what you have read about "
        "the people, places and things in question, consider that your first guess may be wrong, and answer carefully.",
        "icl_examples": 16,
    },
}
"""Options of text prompts by size."""

_BETWEEN = "\n\n"  # also between the prompt and the input
_LARGEST_SHARE = 2


def most_prompt_tokens(positions: int) -> int:
    """Tokens that a text prompt may have: half of the model's positions stay for the input."""
    return positions // _LARGEST_SHARE


def prompt_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text to be put in front of inputs, begun as the tokenizer begins texts."""
    tokens: list[int] = tokenizer(text + _BETWEEN).input_ids
    return tokens


def example_tokens(
    data: str, identity: dict[str, Any], examples: int, tokenizer: PreTrainedTokenizerBase, most: int
) -> tuple[list[int], int]:
    """Token ids of the first texts of a source, and how many texts these are: as many as fit, or the beginning of one.

    Args:
        data: as the user gave it.
        identity: what `resolve_text` made of it.
        examples: how many are wanted.
        most: tokens.
    """
    texts = list(islice(load_texts(data, identity), examples))
    while True:
        tokens = prompt_tokens(_BETWEEN.join(texts), tokenizer)
        if len(tokens) <= most or len(texts) <= 1:
            return tokens[:most], len(texts)
        texts.pop()

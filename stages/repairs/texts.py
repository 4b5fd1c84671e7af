"""Texts that stand in front of every input, as tokens."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from llmrepair.models.text import text_encoder
from llmrepair.stages.sources.texts import load_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BETWEEN = "\n\n"  # also between the prompt and the input
_LARGEST_SHARE = 2


def most_prompt_tokens(positions: int) -> int:
    """Tokens that a text prompt may have: half of the model's positions stay for the input."""
    return positions // _LARGEST_SHARE


def prompt_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text to be put in front of inputs, begun as the tokenizer begins texts."""
    return text_encoder(tokenizer)(text + _BETWEEN)


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

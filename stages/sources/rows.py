"""Whether a source of text has as many rows of tokens as are needed, before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmrepair.models.text import Bos, pack_rows
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.sources.texts import load_texts

if TYPE_CHECKING:
    from llmrepair.stages.sources.weights import Weights

CALIBRATION_TEXT = ("calibration", "seq_len")
TUNING_TEXT = ("tuning_data", "tuning_seq_len")
"""Config fields that name a text, and the tokens of its rows."""


def row_problems(
    data: str, identity: Mapping[str, Any], weights: Weights, fewest: int, seq_len: int, bos: Bos, options: tuple[str, str]
) -> list[Problem]:
    """Says so if rows cannot begin as they should, or a file gives fewer than are needed; other sources are asked when they
    are read.

    Args:
        options: `CALIBRATION_TEXT` or `TUNING_TEXT`.
    """
    if bos == "always" and weights.tokenizer().bos_token_id is None:
        message = f"the tokenizer of `{weights.config.model}` has no token that begins texts"
        return [Problem(message, "leave --bos out", "bos")]
    if "file" not in identity:
        return []
    found = len(pack_rows(load_texts(data, identity), weights.tokenizer(), fewest, seq_len, bos))
    return [too_few_rows(data, found, fewest, seq_len, options)] if found < fewest else []


def too_few_rows(data: str, found: int, fewest: int, seq_len: int, options: tuple[str, str]) -> Problem:
    text, tokens = (f"--{option.replace('_', '-')}" for option in options)
    message = f"`{data}` gives {found} rows of {seq_len} tokens, and {fewest} {'is' if fewest == 1 else 'are'} the least"
    return Problem(message, f"give more text with {text}, or a smaller {tokens}", options[0])

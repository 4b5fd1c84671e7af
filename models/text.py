"""From texts to rows of token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


_PROBE = "a 1 中"
"""Of which each tokenizer knows something."""


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """Gives a text's token ids: begun once, if the tokenizer begins texts, and never ended, for something is to follow."""
    behind, begins = tokens_behind(tokenizer), tokenizer.bos_token

    def encode(text: str) -> list[int]:
        if begins and text.startswith(begins):  # as a chat template does
            return list(tokenizer(text, add_special_tokens=False).input_ids)
        tokens = list(tokenizer(text).input_ids)
        return tokens[: len(tokens) - behind]

    return encode


def tokens_behind(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a tokenizer puts behind each text: some put an end-of-text token there."""
    text, whole = (tokenizer(_PROBE, add_special_tokens=added).input_ids for added in (False, True))
    begun = next((start for start in range(len(whole)) if whole[start : start + len(text)] == text), 0)
    return len(whole) - begun - len(text)


def pack_rows(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, samples: int, seq_len: int) -> torch.Tensor:
    """Up to `samples` rows [N, seq_len] of whole documents, each row starting at the start of one.

    Documents, an end-of-text token after each, are strung together until they fill a row, or several where a document is
    long; what stands over is dropped, so that the next row again starts with the start of a document.
    """
    import torch  # takes seconds; `--help` and checks encode texts without it

    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    encode = text_encoder(tokenizer)
    rows: list[list[int]] = []
    row: list[int] = []
    for text in texts:
        row += encode(text) + end
        if len(row) < seq_len:
            continue
        whole = len(row) // seq_len
        rows += [row[i * seq_len : (i + 1) * seq_len] for i in range(whole)]
        row = []
        if len(rows) >= samples:
            break
    return torch.tensor(rows[:samples], dtype=torch.long).reshape(-1, seq_len)

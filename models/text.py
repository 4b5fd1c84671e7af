"""From texts to rows of token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


Bos = Literal["auto", "always", "never"]
"""Whether rows of text begin with the token that begins texts; auto: where the tokenizer puts it in front of texts."""
_PROBE = "a 1 中"
"""Of which each tokenizer knows something."""


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """Gives a text's token ids: begun once, if the tokenizer begins texts, and never ended, for something is to follow."""
    behind, begins = tokens_behind(tokenizer), tokenizer.bos_token

    def encode(text: str) -> list[int]:
        if begins and text.startswith(begins):  # as a chat template does
            return _unbegun(text, tokenizer)
        tokens = list(tokenizer(text).input_ids)
        return tokens[: len(tokens) - behind]

    return encode


def tokens_behind(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a tokenizer puts behind each text: some put an end-of-text token there."""
    text, whole = (tokenizer(_PROBE, add_special_tokens=added).input_ids for added in (False, True))
    begun = next((start for start in range(len(whole)) if whole[start : start + len(text)] == text), 0)
    return len(whole) - begun - len(text)


def document_encoder(tokenizer: PreTrainedTokenizerBase, bos: Bos) -> tuple[list[int], Callable[[str], list[int]]]:
    """What begins each document and each row, and what gives a document's token ids with it."""
    begin = [tokenizer.bos_token_id]
    if bos == "auto":
        encode = text_encoder(tokenizer)
        return begin if encode(_PROBE)[:1] == begin else [], encode

    if bos == "never":
        return [], lambda text: _unbegun(text, tokenizer)
    return begin, lambda text: [*begin, *_unbegun(text.removeprefix(str(tokenizer.bos_token)), tokenizer)]


def beginning(tokenizer: PreTrainedTokenizerBase, bos: Bos = "auto") -> int | None:
    """The token that begins each row of text; None where none does."""
    begin, _ = document_encoder(tokenizer, bos)
    return begin[0] if begin else None


def _unbegun(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def pack_rows(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, samples: int, seq_len: int, bos: Bos = "auto"
) -> torch.Tensor:
    """Up to `samples` rows [N, seq_len] of whole documents, each row starting at the start of one.

    Documents, an end-of-text token after each, are strung together until they fill a row, or several where a document is
    long, each of which then begins as a document does; what stands over is dropped, so that the next row again starts with the
    start of a document.
    """
    import torch  # takes seconds; `--help` and checks encode texts without it

    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    begin, encode = document_encoder(tokenizer, bos)
    rows: list[list[int]] = []
    row: list[int] = []
    for text in texts:
        row += encode(text) + end
        if len(row) < seq_len:
            continue
        first, rest, step = row[:seq_len], row[seq_len:], seq_len - len(begin)
        rows += [first, *(begin + rest[start : start + step] for start in range(0, len(rest) - step + 1, step))]
        row = []
        if len(rows) >= samples:
            break
    return torch.tensor(rows[:samples], dtype=torch.long).reshape(-1, seq_len)

"""From texts to rows of token ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pack_rows(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, samples: int, seq_len: int) -> torch.Tensor:
    """Up to `samples` rows [N, seq_len] of whole documents, each row starting at the start of one.

    Documents, an end-of-text token after each, are strung together until they fill a row, or several where a document is
    long; what stands over is dropped, so that the next row again starts with the start of a document.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    rows: list[list[int]] = []
    row: list[int] = []
    for text in texts:
        row += tokenizer(text).input_ids + end
        if len(row) < seq_len:
            continue
        whole = len(row) // seq_len
        rows += [row[i * seq_len : (i + 1) * seq_len] for i in range(whole)]
        row = []
        if len(rows) >= samples:
            break
    return torch.tensor(rows[:samples], dtype=torch.long).reshape(-1, seq_len)

"""Text that a model writes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llmrepair.models.sampling import draw
from llmrepair.models.text import text_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OWN_TOKENS = 64
_WRITTEN_AT_ONCE = 128
"""Rows whose keys and values are held at a time."""


@torch.no_grad()
def own_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, samples: int, seq_len: int, seed: int) -> torch.Tensor:
    """Rows [samples, seq_len] that the model itself writes, drawn token by token from all that it may say.

    They are about what it knows, and so about what may be lost; text on other matters would leave that to generalisation.
    """
    in_front = text_encoder(tokenizer)("")[:1]  # what the tokenizer begins a text with, if anything
    first = in_front or [tokenizer.eos_token_id]
    generator = torch.Generator().manual_seed(seed)
    starts = torch.tensor([first] * samples, device=model.device).split(_WRITTEN_AT_ONCE)
    rows = torch.cat([_written(model, start, seq_len, generator) for start in starts])
    return rows[:, :-1] if in_front else rows[:, 1:]


def _written(model: PreTrainedModel, rows: torch.Tensor, tokens: int, generator: torch.Generator) -> torch.Tensor:
    """Rows [N, L] with so many more tokens behind."""
    past = None
    for _ in range(tokens):
        output = model(input_ids=rows[:, -1:], past_key_values=past, use_cache=True)
        past = output.past_key_values
        probabilities = output.logits[:, -1].float().softmax(-1)
        rows = torch.cat([rows, draw(probabilities, generator=generator)], dim=1)
    return rows

"""The logits that a soft prompt is trained by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llmrepair.models.prompt_cache import Opening, build_prompt_cache, forward_with_prompt
from llmrepair.models.training import LogitsOf, of_next_tokens, predicting

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prompt_logits(model: PreTrainedModel, prompt: torch.Tensor, start: int, begin: Opening | None = None) -> LogitsOf:
    """Of rows behind a prompt that is prefilled once per call, so that a batch pays for its tokens once.

    Args:
        start: position at which the rows begin, the same for all prompts of a pool.
        begin: what rows begin with, if all of them do; it stands in front of the prompt.
    """

    def logits_of(rows: torch.Tensor) -> torch.Tensor:
        cache = build_prompt_cache(model, [prompt.to(model.dtype)], start, begin)
        choice = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        logits = forward_with_prompt(model, cache, choice, rows, torch.ones_like(rows), logits_to_keep=predicting(rows))
        return of_next_tokens(logits, rows)

    return logits_of

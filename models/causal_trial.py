"""Whether what a model says behind a token depends on those before it alone: tried out on its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llmrepair.models.failures import LooksAhead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TRIED = ((3, 1), (3, 2))  # token ids: nothing tells the first ones apart but what comes after
_TOLERANCE = {torch.float32: 1e-4}  # of the largest logit: experts sum in another order
_TOLERANCE_OF_HALVES = 0.05


@torch.no_grad()
def refuse_looking_ahead(model: PreTrainedModel) -> None:
    """
    Raises:
        LooksAhead: it knows the tokens that it would be asked for.
    """
    ids = torch.tensor(_TRIED, device=model.device)
    one, other = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, 0]
    if (one - other).abs().max() > _TOLERANCE.get(one.dtype, _TOLERANCE_OF_HALVES) * one.abs().max():
        message = f"{type(model).__name__} does not read from left to right: it sees the tokens that it would be asked for"
        raise LooksAhead(message, "give a model such as Llama, OPT, GPT-2 or Qwen")

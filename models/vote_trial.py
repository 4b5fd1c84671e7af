"""Whether a model's attention can choose a prompt: tried out on its shapes, and on its weights where code looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llmrepair.models.prompt_trial import TRIED_ROWS, prompt_obstacle, told_by, tried_inputs, tried_pool
from llmrepair.models.routing import Router

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def vote_obstacle(model: PreTrainedModel) -> str | None:
    """What keeps inputs from choosing a prompt by their attention; None if nothing does, or no prompt can be cached."""
    return None if prompt_obstacle(model) else told_by(lambda: _vote(model), model)


def _vote(model: PreTrainedModel) -> str | None:
    ids = tried_inputs(model)
    votes = Router(model, tried_pool(model)).votes(ids, torch.ones_like(ids))
    return None if votes.shape == (TRIED_ROWS, 2) else "its first layer has no attention that transformers lets others replace"

"""Whether prompts can stand in front of a model: tried out on its shapes, and on its weights where code looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from llmrepair.models.dry_run import attending, showing_experts_all
from llmrepair.models.embedded import embedded
from llmrepair.models.experts import experts_as_layers
from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache, forward_with_prompt
from llmrepair.models.routing import Router

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS, _TOKENS, _LENGTH = 3, 5, 4  # each another, so that no shape fits by chance
_FAILURES = (AttributeError, AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
_NO_NUMBERS = "meta"
"""What torch speaks of where code looks at numbers, so that the trial tells nothing."""


def prompt_obstacle(model: PreTrainedModel) -> str | None:
    """What keeps a cached prompt from standing in front of a model; None if nothing does. Shapes alone may not tell."""
    return _obstacle(model, lambda: _behind_prompt(model))


def vote_obstacle(model: PreTrainedModel) -> str | None:
    """What keeps inputs from choosing a prompt by their attention; None if nothing does, or no prompt can be cached."""
    return None if prompt_obstacle(model) else _obstacle(model, lambda: _vote(model))


def _obstacle(model: PreTrainedModel, trial: Callable[[], str | None]) -> str | None:
    with attending(model, "eager"), experts_as_layers(model), showing_experts_all(model):
        try:
            return trial()
        except _FAILURES as error:
            said = str(error).strip().partition("\n")[0]
            return None if _NO_NUMBERS in said else said.rstrip(".") or type(error).__name__


def _behind_prompt(model: PreTrainedModel) -> str | None:
    prompt = _prompt(model).requires_grad_()
    past = getattr(model(inputs_embeds=prompt[None], use_cache=True), "past_key_values", None)
    without = [type(layer).__name__ for layer in getattr(past, "layers", []) if not _is_of_attention(layer)]
    if without or past is None:
        return "it has layers that keep more than keys and values of what came before, or none" + (
            f" ({without[0]})" if without else ""
        )
    ids = _ids(model)
    forward_with_prompt(model, _pool(model), torch.zeros(_ROWS, dtype=torch.long), ids, torch.ones_like(ids))
    if model.device.type != _NO_NUMBERS:
        embedded(model, ids[0])
    return None


def _is_of_attention(layer: object) -> bool:
    return hasattr(layer, "keys") and not isinstance(layer, LinearAttentionCacheLayerMixin)


def _vote(model: PreTrainedModel) -> str | None:
    ids = _ids(model)
    votes = Router(model, _pool(model)).votes(ids, torch.ones_like(ids))
    return None if votes.shape == (_ROWS, 2) else "its first layer has no attention that transformers lets others replace"


def _ids(model: PreTrainedModel) -> torch.Tensor:
    return torch.zeros(_ROWS, _TOKENS, dtype=torch.long, device=model.device)


def _pool(model: PreTrainedModel) -> PromptCache:
    return build_prompt_cache(model, [_prompt(model), _prompt(model)])


def _prompt(model: PreTrainedModel) -> torch.Tensor:
    embeddings: Any = model.get_input_embeddings()
    return torch.ones(_LENGTH, embeddings.weight.shape[-1], dtype=model.dtype, device=model.device)

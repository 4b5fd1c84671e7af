"""Whether prompts can stand in front of a model: tried out on its shapes, and on its weights where code looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from llmrepair.models.dry_run import attending, showing_experts_all
from llmrepair.models.embedded import embedded
from llmrepair.models.experts import experts_as_layers
from llmrepair.models.memory import is_out_of_memory
from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache, forward_with_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRIED_ROWS, _TOKENS, _LENGTH = 3, 5, 4  # each another, so that no shape fits by chance
_FAILURES = (AttributeError, AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
_NO_NUMBERS = "meta"
"""What torch speaks of where code looks at numbers, so that the trial tells nothing."""


def prompt_obstacle(model: PreTrainedModel) -> str | None:
    """What keeps a cached prompt from standing in front of a model; None if nothing does. Shapes alone may not tell."""
    return told_by(lambda: _behind_prompt(model), model)


def told_by(trial: Callable[[], str | None], model: PreTrainedModel) -> str | None:
    """What a trial of a model says, or how it failed; None where there were no numbers to look at."""
    with attending(model, "eager"), experts_as_layers(model), showing_experts_all(model):
        try:
            return trial()
        except _FAILURES as error:
            if is_out_of_memory(error):
                raise
            said = str(error).strip().partition("\n")[0]
            return None if _NO_NUMBERS in said else f"its code fails there ({said.rstrip('.') or type(error).__name__})"


def _behind_prompt(model: PreTrainedModel) -> str | None:
    prompt = _prompt(model).requires_grad_()
    past = getattr(model(inputs_embeds=prompt[None], use_cache=True), "past_key_values", None)
    without = [type(layer).__name__ for layer in getattr(past, "layers", []) if not _is_of_attention(layer)]
    if without or past is None:
        return "it has layers that keep more than keys and values of what came before, or none" + (
            f" ({without[0]})" if without else ""
        )
    ids = tried_inputs(model)
    forward_with_prompt(model, tried_pool(model), torch.zeros(TRIED_ROWS, dtype=torch.long), ids, torch.ones_like(ids))
    return None if model.device.type == _NO_NUMBERS else _without_words(model, ids[0])


def _is_of_attention(layer: object) -> bool:
    """Whether nothing but keys and values is kept, where DeepSeek-V3.2 has those of an index beside them."""
    kept = {name for name, value in vars(layer).items() if isinstance(value, torch.Tensor) and value.ndim > 1}
    is_linear = isinstance(layer, LinearAttentionCacheLayerMixin)
    return hasattr(layer, "keys") and kept <= {"keys", "values"} and not is_linear


def _without_words(model: PreTrainedModel, tokens: torch.Tensor) -> str | None:
    try:
        embedded(model, tokens)
    except ValueError as error:
        return str(error)
    return None


def tried_inputs(model: PreTrainedModel) -> torch.Tensor:
    return torch.zeros(TRIED_ROWS, _TOKENS, dtype=torch.long, device=model.device)


def tried_pool(model: PreTrainedModel) -> PromptCache:
    return build_prompt_cache(model, [_prompt(model), _prompt(model)])


def _prompt(model: PreTrainedModel) -> torch.Tensor:
    embeddings: Any = model.get_input_embeddings()
    return torch.ones(_LENGTH, embeddings.weight.shape[-1], dtype=model.dtype, device=model.device)

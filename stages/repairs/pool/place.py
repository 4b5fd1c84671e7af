"""The prompts of a tuned pool, cached in front of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache, opening
from llmrepair.models.selection import FixedSelector, Selector
from llmrepair.models.soft_prompt import load_pool
from llmrepair.stages.repairs.placed import Placed, Placing


@dataclass(frozen=True)
class Pool:
    """Prompts before one of them is chosen."""

    cache: PromptCache
    prompts: list[torch.Tensor]
    validation_losses: list[float]

    def placed(self, placing: Placing, selector: Selector, routing: Mapping[str, Any] | None = None) -> Placed:
        """The model behind the prompts that a selector chooses; of a fixed one the others need not be held."""
        used = [self.prompts[selector.index]] if isinstance(selector, FixedSelector) else self.prompts
        extra_parameters = sum(prompt.numel() for prompt in used)
        return Placed(placing.model, self.cache, selector, self.cache.bos, extra_parameters, routing)


def cached_pool(placing: Placing) -> Pool:
    """The pool, its prompts prefilled once."""
    assert placing.tuned is not None
    model = placing.model
    stored, index = load_pool(placing.tuned)
    prompts = [prompt.to(model.device, model.dtype) for prompt in stored]
    with torch.no_grad():
        cache = build_prompt_cache(model, prompts, index["input_position"], opening(model, index["bos"]))
    return Pool(cache, prompts, index["validation_losses"])

"""A repair that was tuned, put in place on its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llmrepair.models.lora import with_adapter
from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache
from llmrepair.models.ptune import load_ptune
from llmrepair.models.routing import Router, voting_layers
from llmrepair.models.selection import FixedSelector, RoutedSelector, Selector
from llmrepair.models.soft_prompt import load_pool

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.pipeline.artifact import Artifact
    from llmrepair.stages.evaluate.stage import EvaluateConfig


@dataclass(frozen=True)
class Repair:
    """A model with its repair in place."""

    model: PreTrainedModel
    cache: PromptCache | None = None
    selector: Selector | None = None
    extra_parameters: int = 0


def apply_repair(model: PreTrainedModel, config: EvaluateConfig, repair: Artifact | None, batch_size: int) -> Repair:
    if repair is None:
        return Repair(model)
    if config.recovery == "lora":
        return Repair(with_adapter(model, repair.path), extra_parameters=repair.metrics["extra_parameters"])
    if config.recovery == "ptune":
        cache, extra_parameters = load_ptune(model, repair.path)
        return Repair(model, cache, FixedSelector(0), extra_parameters)
    prompts, pool = load_pool(repair.path)
    prompts = [prompt.to(model.device, model.dtype) for prompt in prompts]
    cache = _prompt_cache(model, prompts, pool["input_position"])
    if config.recovery == "prompt":
        losses = pool["validation_losses"]
        best = losses.index(min(losses))
        return Repair(model, cache, FixedSelector(best), prompts[best].numel())
    layers = voting_layers(config.idp_layers, model.config.num_hidden_layers)
    selector = RoutedSelector(Router(model, cache, layers, config.idp_reduce), batch_size)
    return Repair(model, cache, selector, sum(prompt.numel() for prompt in prompts))


@torch.no_grad()
def _prompt_cache(model: PreTrainedModel, prompts: list[torch.Tensor], start: int) -> PromptCache:
    return build_prompt_cache(model, prompts, start)

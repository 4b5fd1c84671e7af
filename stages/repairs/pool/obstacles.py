"""What keeps prompts from standing in front of a model; told before any work, or, where that takes numbers, as soon as there
are some."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from llmrepair.models.prompt_trial import prompt_obstacle
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prompt_problems(weights: Weights) -> list[Problem]:
    return _problems(_told_by_shapes(weights.architecture()), weights.config.model)


def refuse_prompts(model: PreTrainedModel) -> None:
    """
    Raises:
        RequestError: no prompt can stand in front of it, which shapes alone did not tell.
    """
    if problems := _problems(prompt_obstacle(model), type(model).__name__):
        raise RequestError(*problems)


_told_by_shapes = lru_cache(maxsize=8)(prompt_obstacle)


def _problems(why: str | None, model: str) -> list[Problem]:
    hint = "give a --recovery that tunes no prompts"
    return [] if why is None else [Problem(f"no prompt can be cached in front of `{model}`: {why}", hint, "model")]

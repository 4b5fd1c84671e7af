"""What keeps prompts from being chosen by attention; told before any work, or, where that takes numbers, as soon as there are
some."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from llmrepair.models.vote_trial import vote_obstacle
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def vote_problems(weights: Weights) -> list[Problem]:
    return _problems(_told_by_shapes(weights.architecture()), weights.config.model)


def refuse_votes(model: PreTrainedModel) -> None:
    """
    Raises:
        RequestError: its attention cannot choose a prompt, which shapes alone did not tell.
    """
    if problems := _problems(vote_obstacle(model), type(model).__name__):
        raise RequestError(*problems)


_told_by_shapes = lru_cache(maxsize=8)(vote_obstacle)


def _problems(why: str | None, model: str) -> list[Problem]:
    hint = "give a --recovery that does not choose by attention"
    return [] if why is None else [Problem(f"attention of `{model}` cannot choose a prompt: {why}", hint, "recovery")]

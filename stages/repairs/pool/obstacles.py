"""What keeps prompts from standing in front of a model, or from being chosen by attention; told before any work, or, where that
takes numbers, as soon as there are some."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from llmrepair.models.prompt_trial import prompt_obstacle, vote_obstacle
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_OTHER_REPAIR = "give a --recovery that tunes no prompts"
_OTHER_CHOICE = "give a --recovery that does not choose by attention"


def prompt_problems(weights: Weights) -> list[Problem]:
    return _problems(_obstacles_of(weights)[0], _no_prompt(weights.config.model), _OTHER_REPAIR, "model")


def vote_problems(weights: Weights) -> list[Problem]:
    return _problems(_obstacles_of(weights)[1], _no_vote(weights.config.model), _OTHER_CHOICE, "recovery")


def refuse_prompts(model: PreTrainedModel) -> None:
    """
    Raises:
        RequestError: no prompt can stand in front of it, which shapes alone did not tell.
    """
    if problems := _problems(prompt_obstacle(model), _no_prompt(type(model).__name__), _OTHER_REPAIR, "model"):
        raise RequestError(*problems)


def refuse_votes(model: PreTrainedModel) -> None:
    """
    Raises:
        RequestError: its attention cannot choose a prompt, which shapes alone did not tell.
    """
    if problems := _problems(vote_obstacle(model), _no_vote(type(model).__name__), _OTHER_CHOICE, "recovery"):
        raise RequestError(*problems)


def _no_prompt(model: str) -> str:
    return f"no prompt can be cached in front of `{model}`"


def _no_vote(model: str) -> str:
    return f"attention of `{model}` cannot choose a prompt"


def _problems(why: str | None, what: str, hint: str, option: str) -> list[Problem]:
    return [] if why is None else [Problem(f"{what}: {why}", hint, option)]


def _obstacles_of(weights: Weights) -> tuple[str | None, str | None]:
    return _obstacles(weights.architecture())


@lru_cache(maxsize=8)
def _obstacles(model: PreTrainedModel) -> tuple[str | None, str | None]:
    """For a prompt, and for votes."""
    return prompt_obstacle(model), vote_obstacle(model)

"""What keeps prompts from standing in front of a model, or from being chosen by attention; told before any work."""

from __future__ import annotations

from functools import lru_cache

from llmrepair.models.loading import meta_model
from llmrepair.models.prompt_trial import prompt_obstacle, vote_obstacle
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.sources.weights import Weights


def prompt_problems(weights: Weights) -> list[Problem]:
    what = f"no prompt can be cached in front of `{weights.config.model}`"
    return _problems(_obstacles_of(weights)[0], what, "give a --recovery that tunes no prompts", "model")


def vote_problems(weights: Weights) -> list[Problem]:
    what = f"attention of `{weights.config.model}` cannot choose a prompt"
    return _problems(_obstacles_of(weights)[1], what, "give a --recovery that does not choose by attention", "recovery")


def _problems(why: str | None, what: str, hint: str, option: str) -> list[Problem]:
    return [] if why is None else [Problem(f"{what}: {why}", hint, option)]


def _obstacles_of(weights: Weights) -> tuple[str | None, str | None]:
    return _obstacles(weights.model.location, weights.model.revision, weights.config.trust_remote_code)


@lru_cache(maxsize=8)
def _obstacles(location: str, revision: str | None, trust_remote_code: bool) -> tuple[str | None, str | None]:
    """For a prompt, and for votes."""
    model = meta_model(location, revision, trust_remote_code)
    return prompt_obstacle(model), vote_obstacle(model)

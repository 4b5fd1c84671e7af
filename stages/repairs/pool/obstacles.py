"""What keeps prompts from standing in front of a model, or from being chosen by attention; told before any work."""

from __future__ import annotations

from functools import lru_cache

from llmrepair.models.loading import meta_model
from llmrepair.models.prompt_trial import prompt_obstacle, vote_obstacle
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.sources.weights import Weights


def prompt_problems(weights: Weights) -> list[Problem]:
    why = _obstacles(weights.model.location, weights.model.revision, weights.config.trust_remote_code)[0]
    if why is None:
        return []
    message = f"no prompt can be cached in front of `{weights.config.model}`: {why}"
    return [Problem(message, "give a --recovery that tunes no prompts", "model")]


def vote_problems(weights: Weights) -> list[Problem]:
    why = _obstacles(weights.model.location, weights.model.revision, weights.config.trust_remote_code)[1]
    if why is None:
        return []
    message = f"attention of `{weights.config.model}` cannot choose a prompt: {why}"
    return [Problem(message, "give a --recovery that does not choose by attention", "recovery")]


@lru_cache(maxsize=8)
def _obstacles(location: str, revision: str | None, trust_remote_code: bool) -> tuple[str | None, str | None]:
    """For a prompt, and for votes."""
    model = meta_model(location, revision, trust_remote_code)
    return prompt_obstacle(model), vote_obstacle(model)

"""Whether the attention of a model can choose prompts."""

from __future__ import annotations

from llmrepair.models.vote_trial import vote_obstacle
from llmrepair.stages.repairs.trial import Trial

VOTE_TRIAL = Trial(
    vote_obstacle,
    "attention of `{model}` cannot choose a prompt",
    "give a --recovery that does not choose by attention",
    "recovery",
)

"""Whether prompts can stand in front of a model."""

from __future__ import annotations

from llmrepair.models.prompt_trial import prompt_obstacle
from llmrepair.stages.repairs.trial import Trial

PROMPT_TRIAL = Trial(
    prompt_obstacle, "no prompt can be cached in front of `{model}`", "give a --recovery that tunes no prompts", "model"
)

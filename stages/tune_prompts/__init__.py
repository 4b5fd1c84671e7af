"""Tune a pool of soft prompts on a frozen compressed model."""

from llmrepair.stages.tune_prompts.stage import TunePrompts, TunePromptsConfig

__all__ = ["TunePrompts", "TunePromptsConfig"]

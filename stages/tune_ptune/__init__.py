"""Tune virtual tokens through peft, by prefix tuning or p-tuning: a baseline with the prompts' data, objectives and budget."""

from llmrepair.stages.tune_ptune.stage import TunePtune, TunePtuneConfig

__all__ = ["TunePtune", "TunePtuneConfig"]

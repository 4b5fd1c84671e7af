"""Evaluate a compressed model with a repair on lm-eval tasks, item by item."""

from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig

__all__ = ["Evaluate", "EvaluateConfig"]

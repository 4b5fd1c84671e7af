"""Tune LoRA adapters on a frozen compressed model: the same data, objectives and budget as the prompts."""

from llmrepair.stages.tune_lora.stage import TuneLora, TuneLoraConfig

__all__ = ["TuneLora", "TuneLoraConfig"]

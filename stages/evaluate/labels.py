"""What repairs and metrics are called, and which metric stands for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RECOVERIES = {
    "none": "none",
    "hard": "text prompt",
    "icl": "in-context examples",
    "prompt": "one prompt",
    "idp": "IDP",
    "ptune": "virtual tokens",
    "lora": "LoRA",
}
_SELECTED = {
    "random": "random prompt",
    "loss": "prompt of lowest loss",
    "ensemble": "prompt ensemble",
    "oracle": "oracle prompt",
}
_ASKED = frozenset({"recovery", "tasks", "limit", "num_fewshot", "apply_chat_template", "system"})
"""Options of an evaluation that say what is asked; the others say how its repair is put in place."""
_HEADLINES = ("consistent_acc", "exact_match", "acc", "word_perplexity", "bits_per_byte")
_LOWER_IS_BETTER = ("perplexity", "bits_per_byte")


def recovery_label(config: Mapping[str, Any], budget: int | None) -> str:
    """What an evaluation's repair is called.

    Args:
        config: the evaluation's, as its key has it: what has no effect is null.
        budget: that of its tuning; None without one.
    """
    select = config.get("select") or "best-validation"
    if select.startswith("fixed:"):
        label = f"prompt {select.removeprefix('fixed:')}"
    else:
        label = _SELECTED.get(select, RECOVERIES[config["recovery"]])
    return label + (", merged" if config.get("lora_merged") else "") + (", untuned" if budget == 0 else "")


def placing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which an evaluation's repair was put in place, of those that have an effect."""
    return {name: value for name, value in config.items() if name not in _ASKED and value is not None}


def headline(metrics: Sequence[str]) -> str:
    """The metric that stands for a task."""
    return next((m for wanted in _HEADLINES for m in metrics if m.split(",")[0] == wanted), metrics[0])


def higher_is_better(metric: str) -> bool:
    return not any(name in metric for name in _LOWER_IS_BETTER)

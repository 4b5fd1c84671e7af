"""Which metric stands for a task."""

from __future__ import annotations

from collections.abc import Sequence

_HEADLINES = ("consistent_acc", "exact_match", "acc", "word_perplexity", "bits_per_byte")
_LOWER_IS_BETTER = ("perplexity", "bits_per_byte")


def headline(metrics: Sequence[str]) -> str:
    """The metric that stands for a task."""
    return next((m for wanted in _HEADLINES for m in metrics if m.split(",")[0] == wanted), metrics[0])


def higher_is_better(metric: str) -> bool:
    return not any(name in metric for name in _LOWER_IS_BETTER)

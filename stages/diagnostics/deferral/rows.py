"""What is found as rows of text, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmrepair.stages.diagnostics.base import Table
from llmrepair.stages.drawing.numbers import interval_text

_MEASURES = {
    "aurc": ("AURC", 3, 1),
    "e_aurc": ("E-AURC", 3, 1),
    "e_aurc_change": ("E-AURC, change", 3, 1),
    "augrc": ("AUGRC", 3, 1),
    "accuracy_at_80": ("right at 80 %, %", 1, 100),
    "ece": ("ECE", 3, 1),
    "kept_from_lost": ("kept from lost", 2, 1),
    "skill": ("skill", 2, 1),
    "share_needed": ("share to defer, %", 0, 100),
}
"""Measure -> what it is called, its digits, and in what it is told."""
_SHORT = ("aurc", "augrc", "ece")
"""Told without an interval."""
HEADS = ("model", "confidence", *(name for name, _, _ in _MEASURES.values()))


def tables(found: Mapping[str, Any]) -> list[Table]:
    return [Table(task_text(task), HEADS, list(rows(task)), 2) for task in found["tasks"]]


def task_text(task: Mapping[str, Any]) -> str:
    accuracies = ", ".join(f"{row['label']} {interval_text(row['accuracy'], 1, 100)} %" for row in task["rows"])
    return f"{task['task']}, {task['items']} items about {task['subjects']} subjects; right: {accuracies}"


def rows(task: Mapping[str, Any]) -> Iterator[list[str]]:
    for row in task["rows"]:
        for confidence, measures in row["confidences"].items():
            yield [row["label"], confidence, *(_text(name, measures.get(name)) for name in _MEASURES)]


def _text(measure: str, estimate: Mapping[str, float] | None) -> str:
    _, digits, unit = _MEASURES[measure]
    if estimate is None:
        return ""
    return f"{unit * estimate['value']:.{digits}f}" if measure in _SHORT else interval_text(estimate, digits, unit)


def first_confidence(task: Mapping[str, Any]) -> str:
    """What plots are drawn by: the first that repairs have, or the compressed model."""
    return str(next(iter(task["rows"][-1]["confidences"])))


def cost_text(row: Mapping[str, Any], dense_bits: float, confidence: str) -> str:
    """How much of the items has to be handed on, and what that costs; empty of a model that has nothing to gain."""
    share = row["confidences"].get(confidence, {}).get("share_needed")
    if share is None:
        return ""
    bits = row["bits"] + share["value"] * dense_bits
    return (
        f"{row['label']}, by its {confidence}: {interval_text(share, 0, 100)} % of the items asked of the dense "
        f"model come within one point of it; {bits:.1f} bits of a weight are then read for an answer, {dense_bits:.1f} by the "
        "dense model alone"
    )

"""Risk against coverage, and a cascade's accuracy against what the dense model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmrepair.stages.diagnostics.deferral.rows import first_confidence
from llmrepair.stages.diagnostics.names import ALONE, DENSE
from llmrepair.stages.drawing.layers import Series, legend
from llmrepair.stages.drawing.svg import Drawing, Look, drawing, line, linear, polyline, standalone, text, ticks

_WIDTH, _HEIGHT = 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, _WIDTH - 20, 26, _HEIGHT - 40


def deferral_figure(tasks: Sequence[Mapping[str, Any]], looks: Mapping[str, Look], title: str) -> str:
    """The plots of all tasks as an SVG file."""
    rows = [row for task in tasks for row in ([legend_of(task, looks)], panels(task, looks))]
    return standalone(f"{title}: answers that it is sure of, and the others asked of the dense model", rows)


def panels(task: Mapping[str, Any], looks: Mapping[str, Look]) -> list[Drawing]:
    """Both plots of a task, by its first confidence; a line for each model that has it."""
    confidence = first_confidence(task)
    found = {row["model"]: row["curves"][confidence] for row in task["rows"] if confidence in row["curves"]}
    risk = {name: curves["risk"] for name, curves in found.items()}
    handed_on = {name: curves["cascade"] for name, curves in found.items() if name != DENSE}
    dense = next(row["accuracy"]["value"] for row in task["rows"] if row["model"] == DENSE)
    return [
        _panel(f"{task['task']}: wrong among the answered", "coverage", risk, looks, first=1),
        _panel(f"{task['task']}: right, with the dense model's help", "share deferred", handed_on, looks, 0, dense),
    ]


def legend_of(task: Mapping[str, Any], looks: Mapping[str, Look]) -> Drawing:
    return legend([Series(row["label"], _look(row["model"], looks), []) for row in task["rows"]])


def _look(model: str, looks: Mapping[str, Look]) -> Look:
    """Of a repair its own; the dense model's is no repair's."""
    return Look("truth") if model == DENSE else looks.get("none" if model == ALONE else model, Look("grey"))


def _panel(
    title: str,
    below: str,
    curves: Mapping[str, Sequence[float]],
    looks: Mapping[str, Look],
    first: int,
    level: float | None = None,
) -> Drawing:
    """Curves over shares from 0 to 1.

    Args:
        first: 1 of curves that say nothing of a share of 0.
        level: a dashed line.
    """
    values = [value for curve in curves.values() for value in curve] + ([level] if level is not None else [])
    margin = 0.05 * (max(values) - min(values)) or 0.01
    low, high = max(0.0, min(values) - margin), min(1.0, max(values) + margin)
    x, y = linear(0, 1, _LEFT, _RIGHT), linear(low, high if high > low else low + 0.01, _BOTTOM, _TOP)
    marks = [text(0, 12, title, kind="head"), text((_LEFT + _RIGHT) / 2, _HEIGHT - 4, below, "middle", "soft")]
    for tick in ticks(low, high if high > low else low + 0.01):
        marks += [line(_LEFT, y(tick), _RIGHT, y(tick), "grid"), text(_LEFT - 6, y(tick) + 4, f"{tick:.3g}", "end", "soft")]
    marks += [text(x(tick), _BOTTOM + 16, f"{tick:.0%}", "middle", "soft") for tick in (0, 0.25, 0.5, 0.75, 1)]
    marks += [line(_LEFT, y(level), _RIGHT, y(level), "dense")] if level is not None else []
    for name, curve in curves.items():
        steps = len(curve) - 1 + first
        points = [(x(number / steps), y(value)) for number, value in enumerate(curve, first)]
        marks.append(polyline(points, f"{_look(name, looks).colour} curve"))
    return drawing(_WIDTH, _HEIGHT, f"{title}, by {below}; the table below has the numbers", marks)

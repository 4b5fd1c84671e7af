"""The report's plots of scores, costs and where items went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from llmrepair.stages.drawing.numbers import count_text, factor, repair_text, score_text
from llmrepair.stages.drawing.svg import Drawing, Look, Scale, drawing, line, linear, mark, rectangle, text, ticks

_WIDTH, _ROW, _STRIP, _MOST_LETTERS = 400, 38, 16, 38
_PANEL = (360, 250)
_FLOW = (340, 190)


def score_panel(document: Mapping[str, Any], column: Mapping[str, Any]) -> Drawing:
    """A task's scores from top to bottom, a point and its interval each; a dashed line is the dense model in its precision."""
    rows = [row for row in document["rows"] if column["name"] in row["scores"]]
    scores = [_in_units(row["scores"][column["name"]], factor(column)) for row in rows]
    bounds = [bound for bounds in scores for bound in bounds if bound is not None]
    margin = (max(bounds) - min(bounds)) * 0.04 or 0.01
    low, high = min(bounds) - margin, max(bounds) + margin
    x, numbers = linear(low, high, 0, _WIDTH), ticks(low, high)
    is_dense = [(row["compression"], row["kind"]) == ("dense", "none") for row in rows]
    dense = {_precision(row): score[0] for row, score, here in zip(rows, scores, is_dense, strict=True) if here}
    title = f"{column['title']}: {column['metric']}{' in per cent' * (factor(column) == 100)}"
    marks, y, compression = [text(0, 12, title, kind="head")], 16.0, None
    for row, score in zip(rows, scores, strict=True):
        if row["compression"] != compression:
            compression = row["compression"]
            y += 20
            marks.append(text(0, y, compression, kind="head"))
        said = score_text(row["scores"][column["name"]], column)
        marks += [
            _repair(row, y + 16),
            text(_WIDTH, y + 16, said, "end", "soft"),
            *_strip(x, y + 28, numbers, dense.get(_precision(row))),
        ]
        marks += _score(x, y + 28, score, look(document, row["kind"]), f"{compression}, {repair_text(row)}: {said}")
        y += _ROW
    marks += [_tick(x(number), y, number) for number in numbers if x(number) < _WIDTH - 10]
    return drawing(_WIDTH, y + 22, f"{title} of each repair; the table above has the numbers", marks)


def _precision(row: Mapping[str, Any]) -> Any:
    return row["settings"].get("dtype")


def _repair(row: Mapping[str, Any], y: float) -> str:
    """What the row is called, cut off where its score begins."""
    name = repair_text(row)
    return text(0, y, name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…")


def _strip(x: Scale, y: float, numbers: Sequence[float], dense: float | None) -> list[str]:
    """What a score lies on."""
    lines = [line(x(number), y - _STRIP / 2, x(number), y + _STRIP / 2, "grid") for number in numbers]
    lines += [] if dense is None else [line(x(dense), y - _STRIP / 2, x(dense), y + _STRIP / 2, "dense")]
    return [rectangle(0, y - _STRIP / 2, _WIDTH, _STRIP, "strip"), *lines]


def look(document: Mapping[str, Any], kind: str) -> Look:
    """Of a repair's marks."""
    return Look(document["kinds"][kind]["colour"], document["kinds"][kind]["shape"])


def _score(x: Scale, y: float, score: tuple[float, float | None, float | None], look: Look, said: str) -> list[str]:
    value, low, high = score
    interval = [] if low is None or high is None else [line(x(low), y, x(high), y, f"interval {look.colour}")]
    return [*interval, mark(x(value), y, look, said)]


def _in_units(score: Mapping[str, Any], unit: int) -> tuple[float, float | None, float | None]:
    """Value and bounds."""
    low, high = (None if score[name] is None else unit * score[name] for name in ("low", "high"))
    return unit * score["value"], low, high


def _tick(x: float, y: float, value: float) -> str:
    return text(x, y + 17, f"{value:g}" if abs(value) < 1000 else count_text(round(value)), "middle", "soft")


@dataclass(frozen=True)
class Point:
    """A repair: what it costs, and the share of lost items that it brings back."""

    cost: float
    recovered: float
    look: Look
    said: str


def cost_panel(points: Sequence[Point], cost_name: str, is_logarithmic: bool) -> Drawing:
    """What repairs cost against what they bring back. A logarithmic scale is log10(1 + cost), which holds 0."""
    shift: Scale = (lambda cost: math.log10(1 + cost)) if is_logarithmic else float
    most, best = max(point.cost for point in points) or 1, max(0.1, *(point.recovered for point in points))
    powers = [0, *(10.0**power for power in range(math.floor(math.log10(most)) + 1))] if is_logarithmic else ticks(0, most)
    x, y = linear(0, shift(most) * 1.05, 48, _PANEL[0] - 12), linear(0, min(1.0, 1.1 * best), _PANEL[1] - 44, 26)
    marks = [text(0, 12, "share of lost items recovered", kind="soft"), text(204, _PANEL[1] - 6, cost_name, "middle", "soft")]
    for tick in powers:
        marks += [line(x(shift(tick)), _PANEL[1] - 44, x(shift(tick)), 26, "grid"), _tick(x(shift(tick)), _PANEL[1] - 44, tick)]
    for share in ticks(0, min(1.0, 1.1 * best)):
        marks += [line(48, y(share), _PANEL[0] - 12, y(share), "grid"), text(42, y(share) + 4, f"{share:.0%}", "end", "soft")]
    marks += [mark(x(shift(point.cost)), y(point.recovered), point.look, point.said) for point in points]
    return drawing(*_PANEL, f"share of lost items recovered against {cost_name}; the table below has the numbers", marks)


CLASSES = ("kept", "gained", "lost", "never_known")
"""Items by whether the dense and the compressed model are right: both, only the compressed one, only the dense one, none."""


def flow(rates: Mapping[str, float], label: str) -> Drawing:
    """Where items go: on the left as the compressed model answers them, on the right as the repaired one does."""
    right = {
        "kept": rates["kept"] - rates["broken"],
        "gained": rates["gained"] - rates["unlearned"],
        "lost": rates["recovered"],
        "never_known": rates["lucky"],
    }
    total = sum(rates[name] for name in CLASSES)
    gap, top, (width, height) = 14, 8, _FLOW
    unit = (height - 2 * top - gap) / total
    before = dict(zip(CLASSES, _starts([rates[name] for name in CLASSES], 2, gap, top, unit), strict=True))
    ends = [*right.values(), *(rates[name] - right[name] for name in CLASSES)]
    after = _starts(ends, len(CLASSES), gap, top, unit)
    marks, left_x, right_x = [], 104.0, width - 92.0
    for number, name in enumerate(CLASSES):
        start = before[name]
        for is_right, place in ((True, number), (False, number + len(CLASSES))):
            thickness, word = ends[place] * unit, "right" if is_right else "wrong"
            said = f"{round(ends[place], 1):g} of {rates[name]} {name.replace('_', ' ')} items are {word} after the repair"
            if thickness:
                marks.append(_band(left_x, start, right_x, after[place], thickness, f"band {name} {word}", said))
            start += thickness
    marks += _flow_labels(rates, before, unit, left_x - 8)
    for word, share, y in (
        ("right", sum(right.values()), after[0]),
        ("wrong", total - sum(right.values()), after[len(CLASSES)]),
    ):
        marks += [
            line(right_x + 3, y, right_x + 3, y + share * unit, "axis"),
            text(right_x + 9, y + share * unit / 2 + 4, f"{word} {round(share, 1):g}"),
        ]
    return drawing(width, height, label, marks)


def _starts(sizes: Sequence[float], before_gap: int, gap: float, top: float, unit: float) -> list[float]:
    """Where each of a stack begins; a gap stands before the one of number `before_gap`."""
    return [top + unit * sum(sizes[:number]) + (gap if number >= before_gap else 0) for number in range(len(sizes))]


def _band(x1: float, y1: float, x2: float, y2: float, thickness: float, kind: str, said: str) -> str:
    middle = (x1 + x2) / 2
    path = (
        f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}v{thickness:.1f}"
        f"C{middle:.1f} {y2 + thickness:.1f} {middle:.1f} {y1 + thickness:.1f} {x1:.1f} {y1 + thickness:.1f}z"
    )
    return f'<path d="{path}" class="{kind}"><title>{escape(said)}</title></path>'


def _flow_labels(rates: Mapping[str, float], before: Mapping[str, float], unit: float, x: float) -> list[str]:
    """Names and counts of the classes that are there, no closer to each other than a line."""
    marks, last = [], -math.inf
    for name in CLASSES:
        if rates[name]:
            last = max(before[name] + rates[name] * unit / 2 + 4, last + 13)
            marks.append(text(x, last, f"{name.replace('_', ' ')} {rates[name]:g}", "end"))
    return marks

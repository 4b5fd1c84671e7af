"""The report's plots: SVG whose colours are the page's (`class` names one), and whose `<title>`s say what a mark stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from llmrepair.stages.report.text import count_text, repair_text, score_text

Scale = Callable[[float], float]

_LABELS, _ROW = 250, 22
_PANEL = (360, 250)
_FLOW = (340, 190)


def svg(width: float, height: float, label: str, marks: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(marks)}</svg>'


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def dot(x: float, y: float, kind: str, said: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="{kind}"><title>{escape(said)}</title></circle>'


def linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def score_panel(document: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    """A task's scores from top to bottom, a point and its interval each; a dashed line is the dense model."""
    rows = [row for row in document["rows"] if column["name"] in row["scores"]]
    scores = [row["scores"][column["name"]] for row in rows]
    bounds = [bound for score in scores for bound in (score["value"], score["low"], score["high"]) if bound is not None]
    margin = (max(bounds) - min(bounds)) * 0.04 or 0.01
    low, high = min(bounds) - margin, max(bounds) + margin
    x = linear(low, high, _LABELS, 690)
    marks, y, compression = [], 10.0, None
    for row, score in zip(rows, scores, strict=True):
        if row["compression"] != compression:
            compression = row["compression"]
            y += _ROW
            marks.append(text(0, y + 4, compression, kind="head"))
        y += _ROW
        label, said = repair_text(row), f"{compression}, {repair_text(row)}: {score_text(score, column)}"
        shown = label if len(label) <= 38 else f"{label[:37]}…"
        marks.append(f"<g><title>{escape(said)}</title>{text(_LABELS - 12, y + 4, shown, 'end')}</g>")
        if score["low"] is not None:
            marks.append(line(x(score["low"]), y, x(score["high"]), y, f"interval {row['kind']}"))
        marks.append(dot(x(score["value"]), y, row["kind"], said))
    bottom = y + _ROW
    grid = [
        mark for tick in ticks(low, high) for mark in (line(x(tick), 14, x(tick), bottom, "grid"), _tick(x(tick), bottom, tick))
    ]
    if rows[0]["compression"] == "dense" and rows[0]["kind"] == "none":
        grid.append(line(x(scores[0]["value"]), 14, x(scores[0]["value"]), bottom, "dense"))
    return svg(
        700, bottom + 26, f"{column['title']}: {column['metric']} of each repair; the table above has the numbers", grid + marks
    )


def _tick(x: float, y: float, value: float) -> str:
    return text(x, y + 17, f"{value:g}" if abs(value) < 1000 else count_text(round(value)), "middle", "soft")


@dataclass(frozen=True)
class Point:
    """A repair: what it costs, and the share of lost items that it brings back."""

    cost: float
    recovered: float
    kind: str
    said: str


def cost_panel(points: Sequence[Point], cost_name: str, is_logarithmic: bool) -> str:
    """What repairs cost against what they bring back. A logarithmic scale is log10(1 + cost), which holds 0."""
    most = max((point.cost for point in points), default=0) or 1
    shift: Scale = (lambda cost: math.log10(1 + cost)) if is_logarithmic else float
    powers = [0, *(10**power for power in range(math.ceil(math.log10(most)) + 1))]
    x_ticks = [power for power in powers if power <= most or power == 0] if is_logarithmic else ticks(0, most)
    place, y = linear(0, shift(most) * 1.05, 48, _PANEL[0] - 12), linear(0, 1, _PANEL[1] - 44, 14)
    marks = [
        mark
        for tick in x_ticks
        for mark in (line(place(shift(tick)), y(0), place(shift(tick)), y(1), "grid"), _tick(place(shift(tick)), y(0), tick))
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        marks += [line(48, y(share), _PANEL[0] - 12, y(share), "grid"), text(42, y(share) + 4, f"{share:.0%}", "end", "soft")]
    marks.append(text((48 + _PANEL[0] - 12) / 2, _PANEL[1] - 6, cost_name, "middle", "soft"))
    marks += [dot(place(shift(point.cost)), y(point.recovered), point.kind, point.said) for point in points]
    return svg(*_PANEL, f"recovered share against {cost_name}; the table below has the numbers", marks)


CLASSES = ("kept", "gained", "lost", "never_known")
"""Items by whether the dense and the compressed model are right: both, only the compressed one, only the dense one, none."""


def flow(rates: Mapping[str, float], label: str) -> str:
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
            thickness = ends[place] * unit
            word = "right" if is_right else "wrong"
            said = f"{round(ends[place], 1):g} of {rates[name]} {name.replace('_', ' ')} items are {word} after the repair"
            kind = f"band {name} {word}"
            marks.append(_band(left_x, start, right_x, after[place], thickness, kind, said))
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
    return svg(width, height, label, marks)


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

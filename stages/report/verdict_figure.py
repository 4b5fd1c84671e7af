"""All verdicts on one picture: where each model stands between never told and only hidden, and what became of what it lost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.conjecture.verdict import DISPLACED_ABOVE, FORGOTTEN_BELOW
from llmrepair.stages.drawing.svg import Drawing, Look, Scale, drawing, line, linear, mark, polygon, rectangle, standalone, text

FATES = {"displaced": "blue", "latent": "green", "erased": "grey"}
"""What became of a lost item -> its colour."""
_WIDTH, _ROW, _TOP, _BAR = 420, 66, 24, 18
_LEFT, _RIGHT = 8, _WIDTH - 8
_FARTHEST = (-0.4, 1.4)
"""What lies farther out is drawn as an arrow, so that what matters keeps its room."""
_LINE = 62


@dataclass(frozen=True)
class Judged:
    """A verdict on one task."""

    label: str
    word: str
    why: str
    index: Mapping[str, float] | None
    lost: int | None
    """None where no item is right or wrong."""
    shares: Mapping[str, Mapping[str, float]]


def judged(verdicts: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Every verdict on a task."""
    return [each for verdict in verdicts for each in _of_test(verdict)]


def _of_test(verdict: Mapping[str, Any]) -> Iterator[Judged]:
    for task in verdict["tasks"]:
        model = task.get("models", {}).get(DAMAGED, {})
        yield Judged(
            f"{verdict['label']}, {task['title']}",
            task["verdict"]["word"],
            task["verdict"]["why"],
            (task.get("displacement") or {}).get("index"),
            model.get("items", {}).get("lost"),
            model.get("shares") or {},
        )


def verdict_figure(document: Mapping[str, Any]) -> str:
    """An SVG file of a report's verdicts."""
    rows = judged(document["verdicts"])
    return standalone(f"{document['model']}: forgotten or displaced?", [[index_panel(rows), fates_panel(rows)]])


def index_panel(rows: Sequence[Judged]) -> Drawing:
    """The displacement index of each with its 95 % interval, on the regions of the rule."""
    known = [bound for row in rows if row.index is not None for bound in (row.index["low"], row.index["high"])]
    low, high = max(_FARTHEST[0], min(-0.06, *known, 0)), min(_FARTHEST[1], max(1.06, *known, 0))
    x, bottom = linear(low, high, _LEFT, _RIGHT), _TOP + _ROW * len(rows)
    marks = _axis(x, bottom)
    for name, start, end in _regions(low, high):
        marks.append(text((x(start) + x(end)) / 2, 14, name, "middle", "soft"))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number
        marks.append(text(_LEFT, y + 18, row.label, kind="head"))
        marks += _without_index(row, y) if row.index is None else _index(row, row.index, x, (low, high), y)
    said = "; ".join(f"{row.label}: {_verdict_words(row)}" for row in rows)
    return drawing(_WIDTH, bottom + 36, f"Displacement index. {said}", marks)


def _regions(low: float, high: float) -> list[tuple[str, float, float]]:
    """Those of the rule, from where to where."""
    return [
        ("forgotten", low, FORGOTTEN_BELOW),
        ("mixed", FORGOTTEN_BELOW, DISPLACED_ABOVE),
        ("displaced", DISPLACED_ABOVE, high),
    ]


def _axis(x: Scale, bottom: float) -> list[str]:
    marks = [line(_LEFT, bottom, _RIGHT, bottom)]
    for value in (0, FORGOTTEN_BELOW, 0.5, DISPLACED_ABOVE, 1):
        marks += [line(x(value), bottom, x(value), bottom + 4), text(x(value), bottom + 17, f"{value:g}", "middle", "soft")]
    for words, value in (("never told", 0), ("displacement index", 0.5), ("only hidden", 1)):
        marks.append(text(min(max(x(value), _LEFT + 34), _RIGHT - 38), bottom + 32, words, "middle", "soft"))
    return marks


def _without_index(row: Judged, y: float) -> list[str]:
    lines = textwrap.wrap(_verdict_words(row), _LINE, max_lines=2, placeholder=" …")
    return [text(_LEFT, y + 33 + 15 * number, each) for number, each in enumerate(lines)]


def _index(row: Judged, index: Mapping[str, float], x: Scale, bounds: tuple[float, float], y: float) -> list[str]:
    marks = [text(_LEFT, y + 33, _verdict_words(row))]
    for name, start, end in _regions(*bounds):
        marks.append(rectangle(x(start), y + 39, x(end) - x(start), _BAR, f"region {name}"))
    marks += [line(x(value), y + 39, x(value), y + 39 + _BAR, "dense") for value in (0, 1)]
    middle = y + 39 + _BAR / 2
    low, high = (min(max(index[name], bounds[0]), bounds[1]) for name in ("low", "high"))
    marks.append(line(x(low), middle, x(high), middle, "interval truth"))
    for is_beyond, end, step in ((index["low"] < low, x(low), 7), (index["high"] > high, x(high), -7)):
        if is_beyond:
            marks.append(polygon([(end, middle), (end + step, middle - 5), (end + step, middle + 5)], "truth"))
    is_inside = bounds[0] <= index["value"] <= bounds[1]
    return [*marks, mark(x(index["value"]), middle, Look("truth"), _verdict_words(row))] if is_inside else marks


def _verdict_words(row: Judged) -> str:
    if row.index is None:
        return f"{row.word}: {row.why}"
    return f"{row.word}, {row.index['value']:.2f} [{row.index['low']:.2f}, {row.index['high']:.2f}]"


def fates_panel(rows: Sequence[Judged]) -> Drawing:
    """What became of the items that each lost, as a bar of the shares."""
    marks: list[str] = [*_fates_legend()]
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number
        marks += [text(_LEFT, y + 18, row.label, kind="head"), text(_LEFT, y + 33, _fates_words(row)), *_fates(row, y + 39)]
    said = "; ".join(f"{row.label}: {_fates_words(row)}" for row in rows)
    return drawing(_WIDTH, _TOP + _ROW * len(rows) + 36, f"What became of lost items. {said}", marks)


def _fates_legend() -> Iterator[str]:
    x = float(_LEFT)
    for name, reached_by in (("displaced", "a prompt"), ("latent", "LoRA only"), ("erased", "neither")):
        yield rectangle(x, 4, 11, 11, f"part {FATES[name]}")
        yield text(x + 15, 14, f"{name} ({reached_by})", kind="soft")
        x += 22 + 6.5 * len(f"{name} ({reached_by})")


def _fates(row: Judged, y: float) -> Iterator[str]:
    x, width = float(_LEFT), _RIGHT - _LEFT
    for name, share in row.shares.items():
        yield rectangle(x, y, width * share["value"], _BAR, f"part {FATES[name]}", f"{name} {share['value']:.1%}")
        x += width * share["value"]


def _fates_words(row: Judged) -> str:
    if row.lost is None:
        return "none of its answers is right or wrong"
    words = ", ".join(f"{share['value']:.0%} {name}" for name, share in row.shares.items())
    return f"{row.lost} lost: {words}" if words else f"{row.lost} lost"

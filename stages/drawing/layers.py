"""A number layer by layer as a plot: a line with its 95 % band for each of several series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmrepair.stages.drawing.svg import Drawing, Look, Scale, drawing, line, linear, mark, polygon, polyline, text, ticks

_WIDTH, _HEIGHT = 320, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, _WIDTH - 10, 26, _HEIGHT - 38
_MOST_NUMBERS = 8


@dataclass(frozen=True)
class Series:
    name: str
    look: Look
    layers: Sequence[Mapping[str, float]]
    """Value, low and high of each layer."""


def layer_plot(
    title: str,
    series: Sequence[Series],
    first: int = 1,
    bounds: tuple[float, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Drawing:
    """A panel with layers from left to right.

    Args:
        first: the number of the first layer.
        bounds: of the y axis; None: those of what is drawn.
        levels: name -> a value that has no layer: a dashed line.
    """
    low, high = bounds or _bounds(series)
    last = first + max(len(each.layers) for each in series) - 1
    x, y = linear(first, max(last, first + 1), _LEFT + 8, _RIGHT - 8), linear(low, high, _BOTTOM, _TOP)
    marks = [text(0, 12, title, kind="head"), text((_LEFT + _RIGHT) / 2, _HEIGHT - 4, "layer", "middle", "soft")]
    for tick in ticks(low, high):
        marks += [line(_LEFT, y(tick), _RIGHT, y(tick), "grid"), text(_LEFT - 6, y(tick) + 4, f"{tick:g}", "end", "soft")]
    for number in _numbers(first, last):
        marks.append(text(x(number), _BOTTOM + 16, str(number), "middle", "soft"))
    for name, level in (levels or {}).items():
        marks += [line(_LEFT, y(level), _RIGHT, y(level), "dense"), text(_LEFT + 4, y(level) - 4, name, kind="soft")]
    marks += [_band(each, first, x, y) for each in series]
    marks += [_curve(each, first, x, y) for each in series]
    names = ", ".join(each.name for each in series)
    return drawing(_WIDTH, _HEIGHT, f"{title} layer by layer: {names}; the table below has the numbers", marks)


def _bounds(series: Sequence[Series]) -> tuple[float, float]:
    low = min(layer["low"] for each in series for layer in each.layers)
    high = max(layer["high"] for each in series for layer in each.layers)
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin


def _numbers(first: int, last: int) -> range:
    """Those of a few layers, evenly."""
    return range(first, last + 1, math.ceil((last - first + 1) / _MOST_NUMBERS))


def _band(series: Series, first: int, x: Scale, y: Scale) -> str:
    low = [(x(number), y(layer["low"])) for number, layer in enumerate(series.layers, first)]
    high = [(x(number), y(layer["high"])) for number, layer in enumerate(series.layers, first)]
    return polygon([*low, *reversed(high)], f"{series.look.colour} shade")


def _curve(series: Series, first: int, x: Scale, y: Scale) -> str:
    points = [(x(number), y(layer["value"])) for number, layer in enumerate(series.layers, first)]
    said = [
        f"{series.name}, layer {number}: {layer['value']:.3f} [{layer['low']:.3f}, {layer['high']:.3f}]"
        for number, layer in enumerate(series.layers, first)
    ]
    marks = [mark(*point, series.look, words, radius=4) for point, words in zip(points, said, strict=True)]
    return polyline(points, f"{series.look.colour} curve") + "".join(marks)


def legend(series: Sequence[Series]) -> Drawing:
    """Names of the series beside their lines, in a strip as wide as a panel."""
    marks, x = [], 4.0
    for each in series:
        marks += [line(x, 10, x + 24, 10, f"{each.look.colour} curve"), mark(x + 12, 10, each.look, radius=4)]
        marks.append(text(x + 29, 14, each.name))
        x += 46 + 7 * len(each.name)
    return drawing(max(x, _WIDTH), 20, ", ".join(each.name for each in series), marks)

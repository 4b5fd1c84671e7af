"""Plots as SVG: marks whose `class` names a colour, and whose `<title>`s say what a mark stands for.

A page shows drawings in its own colours (`page_colours` and `STYLE` in its style sheet), a file of its own, by `standalone`,
holds both kinds of them, light and dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

Scale = Callable[[float], float]

MARK_COLOURS = {
    "grey": ("#6b7280", "#a3aab8"),
    "violet": ("#7c3aed", "#b794ff"),
    "brown": ("#92610a", "#e0b050"),
    "blue": ("#0369a1", "#4db8f5"),
    "orange": ("#c2410c", "#ff9559"),
    "pink": ("#be185d", "#ff7fb5"),
    "green": ("#15803d", "#5fd38a"),
    "red": ("#c81e1e", "#ff7b7b"),
}
"""Name -> light, dark."""
COLOURS = {
    "page": ("#ffffff", "#16181d"),
    "text": ("#18181b", "#e7e7ea"),
    "soft": ("#5b5b66", "#a4a4b0"),
    "line": ("#d4d4d8", "#3c3f48"),
    "raised": ("#f4f5f7", "#20232a"),
    "link": ("#1d4ed8", "#8ab4ff"),
    **MARK_COLOURS,
}

SHAPES = {
    "circle": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
    "square": "M-.9-.9h1.8v1.8h-1.8z",
    "diamond": "M0-1.3 1.2 0 0 1.3-1.2 0z",
    "triangle": "M0-1.2 1.15.9h-2.3z",
    "triangle-down": "M0 1.2 1.15-.9h-2.3z",
    "cross": "M-1.2-.4h.8v-.8h.8v.8h.8v.8h-.8v.8h-.8v-.8h-.8z",
    "hourglass": "M-1-1.1H1L-1 1.1H1z",
    "bar": "M-1.3-.5h2.6v1h-2.6z",
    "pillar": "M-.5-1.3h1v2.6h-1z",
    "hexagon": "M-1.2 0-.6-1h1.2l.6 1-.6 1h-1.2z",
    "bowtie": "M-1.1-1V1L1.1-1V1z",
    "arrow": "M-1.2-.9 1.2 0-1.2.9-.5 0z",
}
"""Of radius 1, so that repairs differ by more than their colour."""

STYLE = (
    """\
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg .soft { fill: var(--soft); }
svg .head { font-weight: 600; }
svg .grid { stroke: var(--line); }
.axis { stroke: var(--soft); }
.dense { stroke: var(--soft); stroke-dasharray: 4 3; }
"""
    + "".join(f".{kind} {{ fill: var(--{kind}); stroke: var(--{kind}); }}\n" for kind in MARK_COLOURS)
    + """\
.truth { fill: var(--text); stroke: var(--text); }
.interval { stroke-width: 2; }
.mark { stroke: var(--page); vector-effect: non-scaling-stroke; }
.curve { fill: none; stroke-width: 2; }
.shade { fill-opacity: .15; stroke: none; }
.part { stroke: var(--page); }
.strip { fill: var(--raised); }
.region { fill: var(--grey); fill-opacity: .22; }
.region.mixed { fill-opacity: .09; }
.region.displaced { fill: var(--blue); }
.background { fill: var(--page); }
"""
)


def page_colours() -> str:
    """The colours as variables of a page that is light or dark."""
    return " ".join(f"--{name}: light-dark({light}, {dark});" for name, (light, dark) in COLOURS.items())


@dataclass(frozen=True)
class Drawing:
    """As a string an SVG element for a page."""

    width: float
    height: float
    label: str
    """What it is, for those who do not see it."""
    marks: str

    def __str__(self) -> str:
        return f"<svg {self._shape}>{self.marks}</svg>"

    def placed(self, x: float, y: float) -> str:
        """As a part of another one."""
        return f'<svg x="{x:g}" y="{y:g}" width="{self.width:g}" height="{self.height:g}" {self._shape}>{self.marks}</svg>'

    @property
    def _shape(self) -> str:
        return f'viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(self.label)}"'


def drawing(width: float, height: float, label: str, marks: Iterable[str]) -> Drawing:
    return Drawing(width, height, label, "".join(marks))


def standalone(title: str, rows: Sequence[Sequence[Drawing]], gap: float = 16) -> str:
    """An SVG file: a title, and below it drawings in rows. It is light or dark as its reader's system is."""
    placed, y, width = [text(gap, 26, title, kind="head")], 40.0, 0.0
    for row in rows:
        x = gap
        for each in row:
            placed.append(each.placed(x, y))
            x += each.width + gap
        width, y = max(width, x), y + max(each.height for each in row) + gap
    style = f"{_coloured(0)}\n@media (prefers-color-scheme: dark) {{\n{_coloured(1)}\n}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{y:g}" viewBox="0 0 {width:g} {y:g}">'
        f"<title>{escape(title)}</title><style>\n{style}\n</style>"
        f'<rect width="100%" height="100%" class="background"/>{"".join(placed)}</svg>\n'
    )


def _coloured(scheme: int) -> str:
    """The style with its colours in the place of their variables, which not every program that shows SVG files knows."""
    return re.sub(r"var\(--(\w+)\)", lambda variable: COLOURS[variable[1]][scheme], STYLE)


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rectangle(x: float, y: float, width: float, height: float, kind: str, said: str = "") -> str:
    title = f"<title>{escape(said)}</title>" if said else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}">{title}</rect>'


def polygon(points: Iterable[tuple[float, float]], kind: str) -> str:
    return f'<polygon points="{_points(points)}" class="{kind}"/>'


def polyline(points: Iterable[tuple[float, float]], kind: str) -> str:
    return f'<polyline points="{_points(points)}" class="{kind}"/>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


@dataclass(frozen=True)
class Look:
    """How a mark looks: `colour` is one of `MARK_COLOURS`, or another class of the style sheet; `shape` one of `SHAPES`."""

    colour: str
    shape: str = "circle"


def mark(x: float, y: float, look: Look, said: str = "", radius: float = 5) -> str:
    """A point."""
    title, place = f"<title>{escape(said)}</title>" if said else "", f"translate({x:.1f} {y:.1f}) scale({radius:g})"
    return f'<path d="{SHAPES[look.shape]}" transform="{place}" class="{look.colour} mark">{title}</path>'


def linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]

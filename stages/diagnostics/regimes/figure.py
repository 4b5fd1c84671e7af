"""The regimes as plots: a panel for each measure and kind of activation, layers from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmrepair.stages.drawing.layers import Series, layer_plot, legend
from llmrepair.stages.drawing.svg import Drawing, Look, standalone

Likeness = Mapping[str, Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]]
"""Repair -> kind -> measure -> value, low and high of each layer."""

KINDS = {"attention": "attention maps", "mlp": "MLP outputs", "residual": "residual stream"}
MEASURES = {"cosine": "cosine similarity", "cka": "linear CKA"}


Looks = Mapping[str, Look]
"""Of each repair, by name."""


def repair_name(repair: str) -> str:
    return "compressed" if repair == "none" else f"+ {repair}"


def regimes_panels(found: Likeness, looks: Looks) -> list[list[Drawing]]:
    """Likeness to the dense model: a legend, and below it a row of panels for each measure."""
    panels = [
        [layer_plot(f"{kind_name}, {measure_name}", _series(found, looks, kind, measure)) for kind, kind_name in KINDS.items()]
        for measure, measure_name in MEASURES.items()
    ]
    return [[legend(_series(found, looks, *_ANY))], *panels]


_ANY = next(iter(KINDS)), next(iter(MEASURES))


def _series(found: Likeness, looks: Looks, kind: str, measure: str) -> list[Series]:
    return [Series(repair_name(name), looks[name], of_repair[kind][measure]) for name, of_repair in found.items()]


def regimes_figure(found: Likeness, looks: Looks, title: str) -> str:
    """The panels as an SVG file."""
    return standalone(f"{title}: likeness to the dense model", regimes_panels(found, looks))

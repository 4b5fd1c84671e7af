"""The regimes as plots: a panel for each measure and kind of activation, layers from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmrepair.stages.layer_plot import Series, layer_plot, legend
from llmrepair.stages.svg import Drawing, standalone

Likeness = Mapping[str, Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]]
"""Recovery -> kind -> measure -> value, low and high of each layer."""

KINDS = {"attention": "attention maps", "mlp": "MLP outputs", "residual": "residual stream"}
MEASURES = {"cosine": "cosine similarity", "cka": "linear CKA"}


def recovery_name(recovery: str) -> str:
    return "compressed" if recovery == "none" else f"+ {recovery}"


def regimes_panels(found: Likeness) -> list[list[Drawing]]:
    """Likeness to the dense model: a legend, and below it a row of panels for each measure."""
    panels = [
        [layer_plot(f"{kind_name}, {measure_name}", _series(found, kind, measure)) for kind, kind_name in KINDS.items()]
        for measure, measure_name in MEASURES.items()
    ]
    return [[legend(_series(found, *_ANY))], *panels]


_ANY = next(iter(KINDS)), next(iter(MEASURES))


def _series(found: Likeness, kind: str, measure: str) -> list[Series]:
    return [Series(recovery_name(name), name, of_recovery[kind][measure]) for name, of_recovery in found.items()]


def regimes_figure(found: Likeness, title: str) -> str:
    """The panels as an SVG file."""
    return standalone(f"{title}: likeness to the dense model", regimes_panels(found))

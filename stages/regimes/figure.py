"""The regimes as a plot: a panel for each kind and measure, layers from left to right."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.figure import Figure

_COLOURS = {"none": "#6b7280", "prompt": "#0284c7", "idp": "#c2410c", "lora": "#15803d"}
_TITLES = {"attention": "attention maps", "mlp": "MLP outputs", "residual": "residual stream"}
_AXES = {"cosine": "cosine similarity", "cka": "linear CKA"}


def regimes_figure(found: Mapping[str, Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]], title: str) -> str:
    """An SVG element: likeness to the dense model, a line with its 95 % band for each recovery.

    Args:
        found: recovery -> kind -> measure -> value, low and high of each layer.
    """
    figure, panels = pyplot.subplots(len(_AXES), len(_TITLES), figsize=(10, 5.4), sharex=True, layout="constrained")
    for measure, row in zip(_AXES, panels, strict=True):
        for kind, axis in zip(_TITLES, row, strict=True):
            for recovery, of_recovery in found.items():
                _line(axis, recovery, of_recovery[kind][measure])
            axis.grid(color="#e5e7eb")
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(_AXES[measure], fontsize=9)
    for axis, name in zip(panels[0], _TITLES.values(), strict=True):
        axis.set_title(name, fontsize=10)
    for axis in panels[-1]:
        axis.set_xlabel("layer", fontsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True)
    panels[0][0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return _as_svg(figure)


def _as_svg(figure: Figure) -> str:
    """A figure as an SVG element, the same bytes each time; its text stays text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmrepair"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _line(axis: Any, recovery: str, layers: Sequence[Mapping[str, float]]) -> None:
    numbers = range(1, len(layers) + 1)
    low, high = ([layer[end] for layer in layers] for end in ("low", "high"))
    name = "compressed" if recovery == "none" else f"+ {recovery}"
    axis.plot(numbers, [layer["value"] for layer in layers], marker="o", markersize=3, color=_COLOURS[recovery], label=name)
    axis.fill_between(numbers, low, high, color=_COLOURS[recovery], alpha=0.15, linewidth=0)

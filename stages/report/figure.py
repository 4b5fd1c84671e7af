"""The report's plot: scores with intervals, one panel per task; and what other plots share with it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.figure import Figure

COLOURS = {
    "none": "#6b7280",
    "hard": "#7c3aed",
    "icl": "#a16207",
    "prompt": "#0284c7",
    "idp": "#c2410c",
    "ptune": "#be185d",
    "lora": "#15803d",
}


def score_figure(table: Mapping[str, Any]) -> str:
    """An SVG element: rows of the table from top to bottom, a point and its 95 % interval for each score."""
    rows, columns = table["rows"], table["columns"]
    size = (3.0 + 3.2 * len(columns), 1.1 + 0.32 * len(rows))
    figure, axes = pyplot.subplots(1, len(columns), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, column in zip(axes[0], columns, strict=True):
        for place, row in enumerate(rows):
            if score := row["scores"].get(column["name"]):
                is_known = score["low"] is not None
                errors = [[score["value"] - score["low"]], [score["high"] - score["value"]]] if is_known else None
                colour = COLOURS[row["kind"]]
                axis.errorbar(score["value"], place, xerr=errors, fmt="o", markersize=5, capsize=3, color=colour)
        axis.set_title(column["title"], fontsize=10)
        axis.set_xlabel(column["metric"], fontsize=9)
        axis.grid(axis="x", color="#e5e7eb")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(rows)), [f"{row['compression']} · {row['recovery']}" for row in rows], fontsize=9)
    axes[0][0].invert_yaxis()
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """A figure as an SVG element, the same bytes each time; its text stays text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmrepair"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]

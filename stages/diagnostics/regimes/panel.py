"""The report's section on how alike models work to the dense one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmrepair.stages.diagnostics.regimes.figure import KINDS, MEASURES, regimes_panels, repair_name
from llmrepair.stages.drawing.html import cell, folded, grid, link, table
from llmrepair.stages.drawing.svg import Look

_REGIMES = (
    "How alike a model works to the dense one on the same tokens, layer by layer: 1 is the same. Where the line of a repair"
    " lies above that of the compressed model, the repair brings back the dense model's way of working; where it lies "
    "below, the model answers in another way. An input behind a prompt sees other tokens than one without, so distance "
    "alone is no sign of another way to the fact. Bands are 95 % intervals; scales differ from plot to plot."
)


def section(found: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any], store: str) -> str:
    """Likeness to the dense model, of each compressed model and its repairs; the first is open."""
    looks = {name: Look(kind["colour"], kind["shape"]) for name, kind in kinds.items()}
    parts = "".join(_comparison(each, looks, store, number == 0) for number, each in enumerate(found))
    return f"<h2>Does it work as before?</h2><p>{_REGIMES}</p>{parts}"


def _comparison(found: Mapping[str, Any], looks: Mapping[str, Look], store: str, is_open: bool) -> str:
    (strip,), *rows = regimes_panels(found["likeness"], looks)
    panels = grid(panel for row in rows for panel in row)
    heads = ["layer", *map(repair_name, found["likeness"])]
    title = f"{found['label']}: likeness to the dense model"
    numbers = folded("The numbers", table(title, ["activations", "measure"], heads, _likeness_rows(found["likeness"])))
    source = (
        f"<p class=notes>{found['tokens']} tokens of {found['texts']} texts; repairs of tuning seed {found['seed']}; "
        f"{link(found['name'], store, 'all numbers')}</p>"
    )
    return folded(str(found["label"]), f"{strip}{panels}{numbers}{source}", is_open)


def _likeness_rows(likeness: Mapping[str, Any]) -> Iterator[str]:
    for kind, kind_name in KINDS.items():
        for measure, measure_name in MEASURES.items():
            series = [of_recovery[kind][measure] for of_recovery in likeness.values()]
            for number, layer in enumerate(zip(*series, strict=True), 1):
                cells = cell(str(number), number) + "".join(map(_likeness_cell, layer))
                yield f"<tr><th scope=row>{kind_name}</th><td>{measure_name}</td>{cells}</tr>"


def _likeness_cell(likeness: Mapping[str, float]) -> str:
    value, low, high = (likeness[name] for name in ("value", "low", "high"))
    return cell(f"{value:.3f} <small>[{low:.3f}, {high:.3f}]</small>", value)

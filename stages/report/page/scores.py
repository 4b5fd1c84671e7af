"""The table of scores and its plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from llmrepair.pipeline.units import bytes_text
from llmrepair.stages.drawing.html import cell, grid, head, table
from llmrepair.stages.drawing.numbers import count_text, score_text, significant
from llmrepair.stages.drawing.svg import drawing, mark
from llmrepair.stages.report.figure import look, score_panel


def scores(document: Mapping[str, Any]) -> str:
    columns, marked = document["columns"], significant(document)
    metrics = [c["metric"] + ("" if c["higher_is_better"] else ", lower is better") for c in columns]
    heads = [f"{escape(c['title'])}<br><small>{escape(said)}</small>" for c, said in zip(columns, metrics, strict=True)]
    heads += ["extra parameters", "size", "bits per weight", "zeros"]
    return table("Scores", ["compression", "repair"], heads, (_row(row, columns, marked) for row in document["rows"]))


def _row(row: Mapping[str, Any], columns: Iterable[Mapping[str, Any]], marked: set[tuple[str, str]]) -> str:
    cells = [head(row)]
    for column in columns:
        score = row["scores"].get(column["name"])
        star = "<sup>*</sup>" if (row["name"], column["name"]) in marked else ""
        cells.append(cell(score_text(score, column) + star, score and score["value"]))
    cells += [
        cell(count_text(row["extra_parameters"]), row["extra_parameters"]),
        cell(bytes_text(row["size_bytes"]), row["size_bytes"]),
        cell(f"{row['bits_per_weight']:.2f}", row["bits_per_weight"]),
        cell(f"{row['sparsity']:.1%}", row["sparsity"]),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def score_plots(document: Mapping[str, Any]) -> str:
    return grid([score_panel(document, column) for column in document["columns"]], "grid wide")


def repairs_legend(document: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(row["kind"] for row in document["rows"])
    titles = {kind: document["kinds"][kind]["title"] for kind in kinds}
    points = {kind: drawing(12, 12, titles[kind], [mark(6, 6, look(document, kind), radius=4.5)]) for kind in kinds}
    return "".join(f"<li><span aria-hidden=true>{points[kind]}</span>{escape(titles[kind])}</li>" for kind in kinds)

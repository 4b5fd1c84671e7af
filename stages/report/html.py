"""The report as one HTML file that needs nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from llmrepair.pipeline.units import bytes_text
from llmrepair.stages.report.text import COMPARISON_HEADS, comparison_cells, count_text, score_text

_TEMPLATE = Path(__file__).with_name("template.html")


def render_html(title: str, table: Mapping[str, Any], sentences: Sequence[str], figure: str) -> str:
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        findings="".join(f"<li>{escape(sentence)}</li>" for sentence in sentences),
        table=_table_html(table),
        figure=figure,
        comparisons=_comparisons_html(table),
        settings="".join(_settings_html(row) for row in table["rows"]),
    )


def _table_html(table: Mapping[str, Any]) -> str:
    heads = ["compression", "repair", *(f"{c['title']}<br><small>{c['metric']}</small>" for c in table["columns"])]
    heads += ["extra parameters", "size", "bits per weight", "zeros"]
    body = "".join(_row_html(row, table["columns"]) for row in table["rows"])
    return f"<thead><tr>{''.join(f'<th scope=col>{head}</th>' for head in heads)}</tr></thead><tbody>{body}</tbody>"


def _row_html(row: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> str:
    detail = f"<br><small>{escape(row['detail'])}</small>" if row["detail"] else ""
    cells = [f"<th scope=row>{escape(row['compression'])}</th>", f"<td>{escape(row['recovery'])}{detail}</td>"]
    cells += [f"<td class=number>{score_text(row['scores'].get(column['name']), column)}</td>" for column in columns]
    cells += [
        f"<td class=number>{count_text(row['extra_parameters'])}</td>",
        f"<td class=number>{bytes_text(row['size_bytes'])}</td>",
    ]
    cells += [f"<td class=number>{row['bits_per_weight']:.2f}</td>", f"<td class=number>{row['sparsity']:.1%}</td>"]
    return f"<tr>{''.join(cells)}</tr>"


def _comparisons_html(table: Mapping[str, Any]) -> str:
    heads = "".join(f"<th scope=col>{head}</th>" for head in COMPARISON_HEADS)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in cells) for cells in comparison_cells(table))
    return f"<thead><tr>{heads}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody>"


def _settings_html(row: Mapping[str, Any]) -> str:
    settings = {"artifacts": row["keys"], **row["settings"]}
    text = escape(json.dumps(settings, indent=2, ensure_ascii=False))
    return f"<details><summary>{escape(row['compression'])} · {escape(row['recovery'])}</summary><pre>{text}</pre></details>"

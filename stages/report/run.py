"""llmrepair report --model lab --html report.html"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.stage import Context
from llmrepair.stages.report.figure import score_figure
from llmrepair.stages.report.findings import findings
from llmrepair.stages.report.html import render_html
from llmrepair.stages.report.table import build_table

if TYPE_CHECKING:
    from llmrepair.stages.report.stage import Report

HTML_FILE = "report.html"
TABLE_FILE = "report.json"


def run(stage: Report, context: Context) -> dict[str, Any]:
    title = f"{stage.config.model}: compressed and repaired"
    table = build_table(stage.evaluations)
    sentences = findings(table)
    html = render_html(title, table, sentences, score_figure(table))
    (context.folder / HTML_FILE).write_text(html, encoding="utf-8")
    write_json(context.folder / TABLE_FILE, {"title": title, "findings": sentences, **table})
    scores = {f"{row['compression']}, {row['recovery']}": row["scores"] for row in table["rows"]}
    return {"evaluations": len(stage.evaluations), "findings": sentences, "scores": scores}

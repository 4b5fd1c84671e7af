"""llmrepair report --model lab --html report.html"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.stage import Context
from llmrepair.stages.report.examined import read_results, read_verdicts
from llmrepair.stages.report.files import DOCUMENT_FILE, HTML_FILE
from llmrepair.stages.report.findings import findings
from llmrepair.stages.report.html import render_html
from llmrepair.stages.results.table import build_table, kinds

if TYPE_CHECKING:
    from llmrepair.stages.report.stage import Report


def run(stage: Report, context: Context) -> dict[str, Any]:
    table = build_table(stage.evaluations)
    verdicts = read_verdicts(stage.verdicts)
    sentences = [*stage.left_out, *findings(table, has_verdict=bool(verdicts))]
    shown = stage.shown()
    document = {
        "title": f"{stage.config.model}: compressed and repaired",
        "model": stage.config.model,
        "verdicts": verdicts,
        "findings": sentences,
        **table,
        "kinds": kinds(stage.repairs),
        **{each.field: read_results(stage.diagnostics[each.name], each.result_file) for each in shown},
    }
    write_json(context.folder / DOCUMENT_FILE, document)
    (context.folder / HTML_FILE).write_text(render_html(document, "../..", shown), encoding="utf-8")
    scores = {f"{row['compression']}, {row['recovery']}": row["scores"] for row in table["rows"]}
    return {"evaluations": len(stage.evaluations), "findings": sentences, "scores": scores}

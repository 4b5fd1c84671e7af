"""What the second rule went by, and the path that it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.drawing.html import cell, grid, share_cell, table
from llmrepair.stages.drawing.numbers import interval_text
from llmrepair.stages.report.flows_figure import flows_panel


def evidence_card(task: Mapping[str, Any]) -> str:
    """Empty of a task that the first rule judged."""
    if (found := task.get("evidence")) is None:
        return ""
    flows = grid([flows_panel(found["flows"], task["title"])], "grid wide") if found["flows"] is not None else ""
    return "".join([_undone(found), flows, _path(task["verdict"]["path"])])


def _undone(found: Mapping[str, Any]) -> str:
    damage = found["damage"].get(DAMAGED)
    if damage is None or damage["undone"] is None:
        return ""
    return (
        f"<p>Lambda <strong>{interval_text(damage['undone'], 2)}</strong>: the share of the damage to the {found['lost']:.0f} "
        f"robustly lost that the prompt undoes, of these facts alone and beyond {found['placebos']} placebos (0 nothing, 1 "
        f"all; the damage is {interval_text(damage['damage'], 2)} nats a fact).</p>"
    )


def _path(steps: list[Mapping[str, Any]]) -> str:
    said = "".join(
        f"<li>{escape(step['asks'])} {escape(step['finds'])}{' <strong>This decides.</strong>' if step['decides'] else ''}</li>"
        for step in steps
    )
    return f"<ol>{said}</ol>"


def evidence_table(task: Mapping[str, Any]) -> str:
    """Of each model what comes back of the robustly lost."""
    if (found := task.get("evidence")) is None:
        return ""
    heads = ["robustly lost", "a prompt", "placebos", "beyond placebos", "Lambda"]
    return table(f"{task['title']}: robustly lost, and back", ["model"], heads, list(_rows(found)))


def _rows(found: Mapping[str, Any]) -> Iterator[str]:
    for name, recovery in found["recovery"].items():
        if recovery is not None:
            undone = (found["damage"].get(name) or {}).get("undone")
            cells = [cell(f"{recovery['lost']:.0f}", recovery["lost"])]
            cells += [share_cell(each) for each in (recovery["repair"], recovery["placebos"], recovery["corrected"], undone)]
            words = "this model" if name == DAMAGED else f"{escape(name)} (control)"
            yield f"<tr><th scope=row>{words}</th>{''.join(cells)}</tr>"

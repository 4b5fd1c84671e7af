"""The report's section on models that know when they are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from llmrepair.stages.diagnostics.deferral.figure import legend_of, panels
from llmrepair.stages.diagnostics.deferral.rows import HEADS, cost_text, first_confidence, rows, task_text
from llmrepair.stages.diagnostics.names import DENSE
from llmrepair.stages.drawing.html import cell, folded, grid, link, table
from llmrepair.stages.drawing.svg import Look

_SURE = (
    "A confidence is of use where wrong answers have less of it. Then what the compressed model is least sure of can be left "
    "unanswered, or asked of the dense model. E-AURC is what is lost by ordering answers by a confidence and not by their "
    "truth, 0 where it is perfect. Kept from lost is how often an answer that compression left right is surer than one that "
    "it took (0.5 by chance). Skill says how well the right items are handed to the dense model: 0 as at random, 1 as well as "
    "can be. A shuffled confidence knows nothing; a learned one was trained on the answers about other subjects. In brackets "
    "95 % intervals over subjects."
)


def section(found: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any], store: str) -> str:
    """Of each compressed model and its repairs; the first is open."""
    looks = {name: Look(kind["colour"], kind["shape"]) for name, kind in kinds.items()}
    parts = "".join(_compared(each, looks, store, number == 0) for number, each in enumerate(found))
    return f"<h2>Does it know when it is wrong?</h2><p>{_SURE}</p>{parts}"


def _compared(found: Mapping[str, Any], looks: Mapping[str, Look], store: str, is_open: bool) -> str:
    tasks = "".join(_task(task, looks) for task in found["tasks"])
    left_out = f"no confidence is known for {escape(', '.join(found['left_out']))}; " if found["left_out"] else ""
    source = f"<p class=notes>{left_out}{link(found['name'], store, 'all numbers')}</p>"
    return folded(str(found["label"]), f"{tasks}{source}", is_open)


def _task(task: Mapping[str, Any], looks: Mapping[str, Look]) -> str:
    confidence = first_confidence(task)
    bits = next((row["bits"] for row in task["rows"] if row["model"] == DENSE), 0.0)
    sentences = "".join(
        f"<li>{escape(said)}</li>"
        for row in task["rows"]
        for name in dict.fromkeys((confidence, "learned"))
        if (said := cost_text(row, bits, name))
    )
    lines = (
        f"<tr><th scope=row>{escape(model)}</th><td>{escape(name)}</td>{''.join(map(cell, numbers))}</tr>"
        for model, name, *numbers in rows(task)
    )
    numbers = folded("The numbers", table(task_text(task), HEADS[:2], HEADS[2:], lines))
    return f"{legend_of(task, looks)}{grid(panels(task, looks))}<ul>{sentences}</ul>{numbers}"

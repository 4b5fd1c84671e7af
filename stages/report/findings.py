"""What a table says, in sentences: the numbers with their intervals, whichever way they come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmrepair.stages.report.text import difference_text, repair_text

NO_DENSE = "The dense model was not evaluated, so what compression took is not known: run `llmrepair eval --method none`"
NO_VERDICT = (
    "These numbers alone do not decide between forgotten and displaced: that takes controls whose truth is known, "
    "which this report does not hold"
)


def findings(table: Mapping[str, Any], has_verdict: bool = False) -> list[str]:
    """For each task and compressed model, what compression took and what each repair changed; and what cannot be said."""
    rows = {row["name"]: row for row in table["rows"]}
    sentences = []
    for column in table["columns"]:
        for compression in dict.fromkeys(row["compressed"] for row in table["rows"]):
            compared = [
                comparison
                for comparison in table["comparisons"]
                if comparison["column"] == column["name"] and rows[comparison["row"]]["compressed"] == compression
            ]
            if compared:
                sentences.append(_sentence(column["title"], compared, rows))
    if not any(row["compression"] == "dense" and row["recovery"] == "none" for row in table["rows"]):
        sentences.append(NO_DENSE)
    return [*sentences, NO_VERDICT] if table["comparisons"] and not has_verdict else sentences


def _sentence(task: str, compared: Sequence[Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]) -> str:
    compression = rows[compared[0]["row"]]["compression"]
    took = [_change(c["difference"]) for c in compared if rows[c["row"]]["recovery"] == "none"]
    repaired = [
        f"{repair_text(rows[c['row']])} {_change(c['difference'])}" for c in compared if rows[c["row"]]["recovery"] != "none"
    ]
    parts = [f"compression changes the score by {took[0]}"] if took else []
    parts += [f"repairs change it by: {', '.join(repaired)}"] if repaired else []
    return f"{task}, {compression}: {'; '.join(parts)}"


def _change(difference: Mapping[str, float]) -> str:
    clear = difference["low"] > 0 or difference["high"] < 0
    return difference_text(difference) + ("" if clear else " (may be chance)")

"""What a table says, in sentences: the numbers with their intervals, whichever way they come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmrepair.stages.drawing.numbers import difference_text, repair_text

NO_DENSE = "The dense model was not evaluated, so what compression took is not known: run `llmrepair eval --method none`"
NO_VERDICT = (
    "These numbers alone do not decide between forgotten and displaced: that takes controls whose truth is known, "
    "which this report does not hold"
)


def findings(table: Mapping[str, Any], has_verdict: bool = False) -> list[str]:
    """For each task and compressed model, what compression took and what repairs clearly changed; and what cannot be said."""
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
    plain = [each for each in compared if rows[each["row"]]["kind"] == "none"]
    repaired = [each for each in compared if rows[each["row"]]["kind"] != "none"]
    clear = [each for each in repaired if each["is_significant"]]
    parts = [f"the score changes by {_change(each)} from the dense model's" for each in plain]
    if clear:
        changes = ", ".join(f"{repair_text(rows[each['row']])} {difference_text(each['difference'])}" for each in clear)
        parts.append(f"repairs that change it: {changes}")
    if len(repaired) > len(clear):
        parts.append(
            f"what {'the other ' * bool(clear)}{len(repaired) - len(clear)} of {len(repaired)} repairs change may be chance"
        )
    return f"{task}, {rows[compared[0]['row']]['compression']}: {'; '.join(parts)}"


def _change(comparison: Mapping[str, Any]) -> str:
    return difference_text(comparison["difference"]) + ("" if comparison["is_significant"] else " (may be chance)")

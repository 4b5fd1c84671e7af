"""What a table says, in sentences: the numbers with their intervals, whichever way they come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_VERDICT = (
    "These numbers alone do not decide between forgotten and displaced: that takes controls whose truth is known, "
    "which this report does not hold"
)


def findings(table: Mapping[str, Any]) -> list[str]:
    """One sentence for each loss and for each repair, and what cannot be said."""
    rows = {row["name"]: row for row in table["rows"]}
    columns = {column["name"]: column for column in table["columns"]}
    sentences = [_sentence(c, rows[c["row"]], columns[c["column"]]["title"]) for c in table["comparisons"]]
    return [*sentences, *_missing(table), NO_VERDICT] if sentences else _missing(table)


def _sentence(comparison: Mapping[str, Any], row: Mapping[str, Any], task: str) -> str:
    difference = comparison["difference"]
    points = f"{100 * difference['value']:+.1f} points [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
    clear = difference["low"] > 0 or difference["high"] < 0
    doubt = "" if clear else ", which may be chance"
    if row["recovery"] == "none":
        return f"{task}: {row['compression']} against the dense model: {points}{doubt}"
    repair = row["recovery"] + (f" ({row['detail']})" if row["detail"] else "")
    text = f"{task}: {repair} on {row['compression']}: {points}{doubt}"
    return text + _rates_text(comparison["rates"]) if "rates" in comparison else text


def _rates_text(rates: Mapping[str, int]) -> str:
    return (
        f"; it gets {rates['recovered']} of {rates['lost']} lost items right, breaks {rates['broken']} of {rates['kept']} "
        f"kept ones, and gets {rates['lucky']} of {rates['never_known']} right that the dense model never knew"
    )


def _missing(table: Mapping[str, Any]) -> list[str]:
    if any(row["compression"] == "dense" and row["recovery"] == "none" for row in table["rows"]):
        return []
    return ["The dense model was not evaluated, so what compression took is not known; run `llmrepair eval --method none`"]

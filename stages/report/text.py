"""How numbers are written, on the terminal and in the HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHARES = ("exact_match", "acc", "acc_norm", "consistent_acc", "normalised_exact_match")


def score_text(score: Mapping[str, Any] | None, column: Mapping[str, Any]) -> str:
    """`85.6 [83.0, 87.9]`: a share in per cent, anything else as it is; empty where there is none."""
    if score is None:
        return ""
    factor = 100 if column["metric"].split(",")[0] in _SHARES else 1
    digits = 1 if factor == 100 or score["value"] >= 100 else 3
    if score["low"] is None:
        return f"{factor * score['value']:.{digits}f}"
    value, low, high = (factor * score[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def difference_text(difference: Mapping[str, Any]) -> str:
    """`-1.4 points [-3.8, +1.1]`."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def repair_text(row: Mapping[str, Any]) -> str:
    """A row's repair, with the settings that tell it from others of its kind, and how many seeds it has if several."""
    seeds = f"{len(row['seeds'])} seeds" if len(row["seeds"]) > 1 else ""
    details = ", ".join(text for text in (row["detail"], seeds) if text)
    return f"{row['recovery']} ({details})" if details else str(row["recovery"])


COMPARISON_HEADS = ("task", "compression", "repair", "change", "p", "lost, recovered", "kept, broken", "never known, lucky")


def comparison_cells(table: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for each repair that was compared with its compressed model: see `COMPARISON_HEADS`.

    Lost: right before compression, wrong after. Kept: right in both. Never known: wrong in both.
    """
    rows = {row["name"]: row for row in table["rows"]}
    titles = {column["name"]: column["title"] for column in table["columns"]}
    cells = []
    for comparison in table["comparisons"]:
        row = rows[comparison["row"]]
        if row["recovery"] == "none":
            continue
        head = [titles[comparison["column"]], row["compression"], repair_text(row)]
        head += [difference_text(comparison["difference"]), f"{comparison['difference']['p_value']:.2g}"]
        counts = comparison.get("rates")
        pairs = (("lost", "recovered"), ("kept", "broken"), ("never_known", "lucky"))
        cells.append([*head, *(f"{counts[all_]}, {round(counts[some], 1):g}" if counts else "" for all_, some in pairs)])
    return cells


def count_text(count: int) -> str:
    return f"{count:,}"

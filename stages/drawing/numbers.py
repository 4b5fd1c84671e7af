"""How numbers are written, on the terminal and in the HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHARES = ("exact_match", "acc", "acc_norm", "consistent_acc", "normalised_exact_match")


def factor(column: Mapping[str, Any]) -> int:
    """Shares are written in per cent, anything else as it is."""
    return 100 if column["metric"].split(",")[0] in _SHARES else 1


def score_text(score: Mapping[str, Any] | None, column: Mapping[str, Any]) -> str:
    """`85.6 [83.0, 87.9]`; empty where there is none."""
    if score is None:
        return ""
    unit = factor(column)
    digits = 1 if unit == 100 or score["value"] >= 100 else 3
    if score["low"] is None:
        return f"{unit * score['value']:.{digits}f}"
    value, low, high = (unit * score[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def difference_text(difference: Mapping[str, Any]) -> str:
    """`-1.4 points [-3.8, +1.1]`."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def interval_text(estimate: Mapping[str, float], digits: int, unit: int = 1) -> str:
    """`0.43 [0.31, 0.55]`."""
    value, low, high = (unit * estimate[name] for name in ("value", "low", "high"))
    return f"{value:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]"


def repair_text(row: Mapping[str, Any]) -> str:
    """A row's repair, with the settings that tell it from others of its kind, and how many seeds it has if several."""
    seeds = f"{len(row['seeds'])} seeds" if len(row["seeds"]) > 1 else ""
    details = ", ".join(text for text in (row["detail"], seeds) if text)
    return f"{row['recovery']} ({details})" if details else str(row["recovery"])


def significant(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Row and column of each repair whose answers differ from those of the same model without one."""
    repairs = {row["name"] for row in document["rows"] if row["kind"] != "none"}
    compared = [each for each in document["comparisons"] if each["row"] in repairs]
    return {(each["row"], each["column"]) for each in compared if each["is_significant"]}


INTERVALS_NOTE = (
    "In brackets 95 % intervals: Wilson's of shares, a bootstrap over items of perplexities, "
    "of several seeds for other seeds and other items"
)
SHARES_NOTE = "Shares of right answers are in per cent"
MARK_NOTE = (
    "* differs from the same model without a repair, p ≤ .05 by McNemar's exact test (of several seeds their median p-value, "
    "corrected for being one of several), after Holm's correction over the tasks. Tasks without right and wrong answers are "
    "not tested"
)

CHANGES_NOTE = (
    "p is of McNemar's exact test. Intervals of changes are Agresti and Min's, of several seeds for other seeds too, of which "
    "the test knows nothing: where few items change, or seeds differ, one can show a change and the other not"
)


def footnotes(document: Mapping[str, Any]) -> list[str]:
    """What brackets and marks of the table of scores mean."""
    has_shares = any(factor(column) == 100 for column in document["columns"])
    has_repairs = any(row["kind"] != "none" for row in document["rows"])
    return [INTERVALS_NOTE] + [SHARES_NOTE] * has_shares + [MARK_NOTE] * has_repairs


COMPARISON_HEADS = (
    "task",
    "compression",
    "repair",
    "change",
    "p",
    "p, Holm",
    "lost, recovered",
    "kept, broken",
    "never known, lucky",
)


def comparison_cells(table: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for each repair that was compared with its compressed model: see `COMPARISON_HEADS`.

    Lost: right before compression, wrong after. Kept: right in both. Never known: wrong in both.
    """
    rows = {row["name"]: row for row in table["rows"]}
    titles = {column["name"]: column["title"] for column in table["columns"]}
    cells = []
    for comparison in table["comparisons"]:
        row = rows[comparison["row"]]
        if row["kind"] == "none":
            continue
        head = [titles[comparison["column"]], row["compression"], repair_text(row)]
        p_values = (f"{comparison[name]:.2g}" for name in ("p_mcnemar", "p_holm"))
        head += [difference_text(comparison["difference"]), *p_values]
        counts = comparison.get("rates")
        pairs = (("lost", "recovered"), ("kept", "broken"), ("never_known", "lucky"))
        cells.append([*head, *(f"{counts[all_]}, {round(counts[some], 1):g}" if counts else "" for all_, some in pairs)])
    return cells


def count_text(count: int) -> str:
    return f"{count:,}"

"""How numbers are written, on the terminal and in the HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def score_text(score: Mapping[str, Any] | None, column: Mapping[str, Any]) -> str:
    """`85.6 [83.0, 87.9]`: a share in per cent, anything else as it is; empty where there is none."""
    if score is None:
        return ""
    factor = 100 if column["metric"].split(",")[0] in ("exact_match", "acc", "acc_norm") else 1
    value, low, high = (factor * score[name] for name in ("value", "low", "high"))
    digits = 1 if factor == 100 or value >= 100 else 3
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def bytes_text(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def count_text(count: int) -> str:
    return f"{count:,}"

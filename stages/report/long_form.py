"""The results as comma-separated values for programs: one line for each model, compression, repair, task and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = (
    *("model", "compression", "recovery", "detail", "task", "metric", "value", "low", "high", "n", "seeds"),
    *("extra_parameters", "size_bytes", "bits_per_weight", "sparsity", "difference", "p_mcnemar", "p_holm", "keys"),
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(document: Mapping[str, Any]) -> str:
    """Numbers as they are, so shares between 0 and 1; empty where something is not known.

    `seeds` and `keys` (of the evaluations) are separated by spaces. `difference` and its p-values are against the same model
    without a repair, or of that one against the dense model, and stand where the metric is the one that was compared.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _as_text(value) for name, value in line.items()} for line in _lines(document))
    return buffer.getvalue()


def _as_text(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula begins with an apostrophe, which tells it not to."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _lines(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    compared = {(each["row"], each["column"]): each for each in document["comparisons"]}
    for row in document["rows"]:
        seeds = {evaluation["name"]: evaluation["seed"] for evaluation in row["evaluations"]}
        for column in document["columns"]:
            if (measured := row["measured"].get(column["name"])) is None:
                continue
            of_row = {name: row[name] for name in COLUMNS if name in row} | {
                "model": document["model"],
                "task": column["title"],
                "seeds": " ".join(str(seeds[name]) for name in measured["evaluations"] if seeds[name] is not None),
                "keys": " ".join(measured["evaluations"]),
            }
            for metric, score in measured["metrics"].items():
                line = of_row | {"metric": metric} | {name: score[name] for name in ("value", "low", "high", "n")}
                yield line | (_comparison(compared.get((row["name"], column["name"]))) if metric == column["metric"] else {})


def _comparison(comparison: Mapping[str, Any] | None) -> dict[str, Any]:
    if comparison is None:
        return {}
    return {"difference": comparison["difference"]["value"], **{name: comparison[name] for name in ("p_mcnemar", "p_holm")}}

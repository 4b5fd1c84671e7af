"""Evaluations -> rows and columns: what the terminal and the HTML file show, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.pipeline.keys import document_key
from llmrepair.stages.evaluate.files import RESULTS_FILE, samples_file
from llmrepair.stages.report.comparison import paired_difference, rates

if TYPE_CHECKING:
    from llmrepair.pipeline.artifact import Artifact
    from llmrepair.stages.report.stage import Evaluation

RECOVERIES = {"none": "none", "prompt": "one prompt", "idp": "IDP", "ptune": "virtual tokens", "lora": "LoRA"}
_HEADLINES = ("consistent_acc", "exact_match", "acc", "word_perplexity", "bits_per_byte")
_LOWER_IS_BETTER = ("perplexity", "bits_per_byte")


def build_table(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Rows (a compression with a repair), columns (a task as it was asked), scores, and paired comparisons."""
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, dict[str, Any]] = {}
    correct: dict[tuple[str, str], dict[Any, bool]] = {}
    for evaluation in sorted(evaluations, key=_row_order):
        row_name = _row_name(evaluation)
        row = rows.setdefault(row_name, _row(evaluation))
        row["keys"].append(evaluation.artifact.name)
        for column_name, column in _columns(evaluation).items():
            columns[column_name] = column
            row["scores"][column_name] = _scores(evaluation, column["asked"])[column["metric"]]
            correct[row_name, column_name] = _correct_items(evaluation, column["tasks"])
    _add_details(list(rows.values()))
    return {
        "columns": [{"name": name, **column} for name, column in sorted(columns.items())],
        "rows": [{"name": name, **row} for name, row in rows.items()],
        "comparisons": list(_comparisons(rows, columns, correct)),
    }


def _row_order(evaluation: Evaluation) -> tuple[Any, ...]:
    is_compressed = evaluation.compressed.record["tags"]["method"] != "none"
    recovery = evaluation.artifact.key_document["config"]["recovery"]
    label = compression_label(evaluation.compressed)
    return is_compressed, label, list(RECOVERIES).index(recovery), evaluation.artifact.key


def compression_label(compressed: Artifact) -> str:
    """A compression in a few words: `gptq 3 bits, group 32`. As it was recorded, because settings change with versions."""
    return str(compressed.record["label"].removeprefix(f"{compressed.record['tags']['model']} "))


def _row_name(evaluation: Evaluation) -> str:
    config = evaluation.artifact.key_document["config"]
    repair = evaluation.repair.name if evaluation.repair is not None else "none"
    return f"{evaluation.compressed.name} {config['recovery']} {config['idp_layers']} {config['idp_reduce']} {repair}"


def _row(evaluation: Evaluation) -> dict[str, Any]:
    compressed, config = evaluation.compressed, evaluation.artifact.key_document["config"]
    return {
        "compression": compression_label(compressed),
        "recovery": RECOVERIES[config["recovery"]],
        "compressed": compressed.name,
        "detail": "",
        "settings": _settings(evaluation),
        "extra_parameters": evaluation.artifact.metrics["extra_parameters"],
        "size_bytes": compressed.metrics["size_bytes"],
        "bits_per_weight": compressed.metrics["bits_per_weight"],
        "sparsity": compressed.metrics["sparsity"],
        "keys": [],
        "scores": {},
    }


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    """Every setting of the row's compression and repair."""
    settings = dict(evaluation.compressed.key_document["config"])
    if evaluation.repair is not None:
        settings |= evaluation.repair.key_document["config"] | {"tuning_data": evaluation.repair.key_document["sources"]}
    config = evaluation.artifact.key_document["config"]
    return settings | {name: config[name] for name in ("idp_layers", "idp_reduce")}


def _add_details(rows: list[dict[str, Any]]) -> None:
    """Rows that would read the same are told apart by the settings in which they differ."""
    for row in rows:
        alike = [other for other in rows if (other["compression"], other["recovery"]) == (row["compression"], row["recovery"])]
        differing = [name for name in row["settings"] if len({repr(other["settings"].get(name)) for other in alike}) > 1]
        row["detail"] = ", ".join(f"{name} {row['settings'][name]}" for name in differing)


def _columns(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """A column is a task, or a group with a score of its own, asked in one way of the same data."""
    document = evaluation.artifact.key_document
    way = _way(document["config"])
    columns = {}
    for asked, tasks in _asked(evaluation).items():
        if not (scores := _scores(evaluation, asked)):
            continue
        metric = headline(list(scores))
        source = {task: document["sources"]["tasks"][task] for task in tasks}
        columns[f"{asked}{way} {document_key(source)}"] = {
            "title": f"{asked}{way}",
            "asked": asked,
            "tasks": tasks,
            "metric": metric,
            "higher_is_better": not any(name in metric for name in _LOWER_IS_BETTER),
        }
    return columns


def _way(config: Mapping[str, Any]) -> str:
    """How the tasks were asked, where not as they are."""
    limit = f", first {config['limit']}" if config["limit"] else ""
    few_shot = f", {config['num_fewshot']}-shot" if config["num_fewshot"] is not None else ""
    chat = ", chat" if config["apply_chat_template"] else ""
    return limit + few_shot + chat + (f", system: {config['system']}" if config["system"] else "")


def _asked(evaluation: Evaluation) -> dict[str, list[str]]:
    """What was asked for -> its tasks; a group without a score of its own is its members."""
    members = evaluation.artifact.read_json(RESULTS_FILE)["group_subtasks"]

    def tasks(name: str) -> list[str]:
        return [task for child in members[name] for task in tasks(child)] if name in members else [name]

    def columns(name: str) -> dict[str, list[str]]:
        if name in evaluation.artifact.metrics["groups"] or name not in members:
            return {name: tasks(name)}
        return {column: those for child in members[name] for column, those in columns(child).items()}

    asked = evaluation.artifact.key_document["config"]["tasks"]
    return {column: those for name in asked for column, those in columns(name).items()}


def _scores(evaluation: Evaluation, asked: str) -> Mapping[str, Any]:
    """Metric -> score of a group or task."""
    metrics = evaluation.artifact.metrics
    return dict(metrics["groups"].get(asked) or metrics["tasks"][asked])


def headline(metrics: Sequence[str]) -> str:
    """The metric that stands for a task."""
    return next((m for wanted in _HEADLINES for m in metrics if m.split(",")[0] == wanted), metrics[0])


def _correct_items(evaluation: Evaluation, tasks: Sequence[str]) -> dict[Any, bool]:
    """Sample of any of the tasks -> whether it was answered right; empty for tasks without right and wrong."""
    return {
        (task, sample["doc_id"], sample["filter"]): sample["correct"]
        for task in tasks
        for sample in evaluation.artifact.read_jsonl(samples_file(task))
        if sample["correct"] is not None
    }


def _comparisons(
    rows: Mapping[str, dict[str, Any]], columns: Mapping[str, Any], correct: Mapping[tuple[str, str], dict[Any, bool]]
) -> Any:
    """Each repaired row against its compressed model without a repair, and that one against the dense model."""
    dense = next((name for name, row in rows.items() if (row["compression"], row["recovery"]) == ("dense", "none")), None)
    plain = {row["compressed"]: name for name, row in rows.items() if row["recovery"] == "none"}
    for name, row in rows.items():
        baseline = dense if row["recovery"] == "none" else plain.get(row["compressed"])
        for column in columns:
            results, before = correct.get((name, column)), correct.get((baseline or "", column))
            if name == dense or not results or not before or results.keys() != before.keys():
                continue
            ours, theirs = _array(results, results), _array(before, results)
            comparison = {
                "row": name,
                "baseline": baseline,
                "column": column,
                "difference": vars(paired_difference(ours, theirs)),
            }
            known = correct.get((dense or "", column), {})
            if row["recovery"] != "none" and row["compression"] != "dense" and known.keys() == results.keys():
                comparison["rates"] = vars(rates(_array(known, results), theirs, ours))
            yield comparison


def _array(results: Mapping[Any, bool], order: Mapping[Any, bool]) -> NDArray[Any]:
    return np.array([results[item] for item in order], dtype=bool)

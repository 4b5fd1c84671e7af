"""Evaluations -> rows and columns: what the terminal and the HTML file show, as JSON values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrepair.pipeline.keys import document_key
from llmrepair.stages.evaluate.files import RESULTS_FILE, samples_file
from llmrepair.stages.evaluate.headline import headline, higher_is_better
from llmrepair.stages.results.evaluation import Evaluation, placing
from llmrepair.stages.sources.models import model_name
from llmrepair.stages.statistics.comparison import counts
from llmrepair.stages.statistics.paired import paired_difference
from llmrepair.stages.statistics.resampling import Part, Resampling
from llmrepair.stages.statistics.significance import LEVEL, holm, mcnemar

if TYPE_CHECKING:
    from llmrepair.pipeline.artifact import Artifact
    from llmrepair.stages.repairs.base import Repair

UNREPAIRED = "none"
"""The kind of a row without a repair."""
_Correct = dict[Any, bool]
"""Item -> whether it was answered right."""


class _Answers(NamedTuple):
    """What one evaluation found for a column."""

    scores: Mapping[str, Any]
    """By metric."""
    correct: _Correct
    evaluation: str


def build_table(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Rows (a compression with a repair, all seeds of it), columns (a task as it was asked), scores, paired comparisons."""
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, dict[str, Any]] = {}
    answers: dict[tuple[str, str], dict[int | None, _Answers]] = defaultdict(dict)  # by seed
    for evaluation in sorted(evaluations, key=_row_order):
        row_name = _row_name(evaluation)
        row = rows.setdefault(row_name, _row(evaluation))
        row["keys"].append(evaluation.artifact.name)
        row["evaluations"].append(recorded := _recorded(evaluation))
        for column_name, column in _columns(evaluation).items():
            columns[column_name] = column
            scores, correct_items = _scores(evaluation, column["asked"]), _correct_items(evaluation, column["tasks"])
            recorded["scores"][column_name] = scores[column["metric"]]["value"]
            answers[row_name, column_name][_seed(evaluation)] = _Answers(scores, correct_items, evaluation.artifact.name)
    for (row_name, column_name), of_seeds in answers.items():
        rows[row_name]["seeds"] = sorted({*rows[row_name]["seeds"], *of_seeds} - {None})
        metrics = _mean_scores(list(of_seeds.values()), columns[column_name]["metric"])
        rows[row_name]["scores"][column_name] = metrics[columns[column_name]["metric"]]
        measured = {"metrics": metrics, "seeds": len(of_seeds), "evaluations": [each.evaluation for each in of_seeds.values()]}
        rows[row_name]["measured"][column_name] = measured
    correct = {place: [each.correct for each in of_seeds.values()] for place, of_seeds in answers.items()}
    _add_details(list(rows.values()))
    comparisons = list(_comparisons(rows, columns, correct))
    add_holm(comparisons)
    return {
        "columns": [{"name": name, **column} for name, column in sorted(columns.items())],
        "rows": [{"name": name, **row} for name, row in rows.items()],
        "kinds": kinds(each.repair for each in evaluations),
        "comparisons": comparisons,
    }


def kinds(repairs: Iterable[Repair]) -> dict[str, dict[str, Any]]:
    """Name of a repair -> what pages and plots say of it."""
    return {each.name: {name: getattr(each, name) for name in ("title", "colour", "shape", "chooses")} for each in repairs}


def _row_order(evaluation: Evaluation) -> tuple[Any, ...]:
    repair = evaluation.place, evaluation.label, evaluation.artifact.metrics["extra_parameters"]
    return *compression_order(evaluation.compressed), *repair, _seed(evaluation) or 0, evaluation.artifact.key


def compression_order(compressed: Artifact) -> tuple[bool, bool, str]:
    """The dense model first, controls last, the others by what they are called."""
    is_dense, is_control = compressed.record["tags"]["method"] == "none", "control" in compressed.key_document["config"]
    return not is_dense, is_control, compression_label(compressed)


def compression_label(compressed: Artifact) -> str:
    """A compression in a few words: `gptq 3 bits, group 32`. As it was recorded, because settings change with versions."""
    label, model = str(compressed.record["label"]), compressed.record["tags"]["model"]
    return label.removeprefix(f"{model} ").removeprefix(f"{model_name(model)} ")  # which it has been called since


def _row_name(evaluation: Evaluation) -> str:
    """Tells rows apart; repairs that only differ in their seed are one."""
    recovery, repair = evaluation.artifact.key_document["config"]["recovery"], "none"
    if evaluation.tuned is not None:
        made_of = evaluation.tuned.key_document
        repair = document_key({**made_of, "config": {**made_of["config"], "seed": None}})
    return f"{evaluation.compressed.name} {recovery} {document_key(_repair_settings(evaluation))} {repair}"


def _repair_settings(evaluation: Evaluation) -> dict[str, Any]:
    """How the evaluation put its repair in place."""
    document = evaluation.artifact.key_document
    examples = document["sources"].get("tuning_data")  # of the evaluation itself, not of its repair
    return placing(document["config"]) | ({"tuning_data": examples} if examples is not None else {})


def _seed(evaluation: Evaluation) -> int | None:
    return evaluation.tuned.key_document["config"].get("seed") if evaluation.tuned is not None else None


def _mean_scores(of_seeds: Sequence[_Answers], headline_metric: str) -> dict[str, Any]:
    """Metric -> the mean over seeds. Its interval is for other seeds and items, and only known of the metric that stands for
    the task, and there only where items are right or wrong."""
    scores = [each.scores for each in of_seeds]
    if len(scores) == 1:
        return dict(scores[0])
    means = {
        name: {
            **score,
            "value": float(np.mean([each[name]["value"] for each in scores])),
            "stderr": None,
            "low": None,
            "high": None,
        }
        for name, score in scores[0].items()
    }
    correct = [each.correct for each in of_seeds]
    if correct[0] and all(each.keys() == correct[0].keys() for each in correct):
        answers = np.stack([_array(each, correct[0]) for each in correct])
        share = Resampling(answers.shape[1]).rate(Part(answers, np.ones(answers.shape[1], dtype=bool)))
        assert share is not None  # there are items
        means[headline_metric] |= {"low": share.low, "high": share.high}
    return means


def _row(evaluation: Evaluation) -> dict[str, Any]:
    compressed, config = evaluation.compressed, evaluation.artifact.key_document["config"]
    metrics = {**compressed.metrics, **evaluation.artifact.metrics}  # a merged repair changes what the weights take
    return {
        "compression": compression_label(compressed),
        "kind": config["recovery"],
        "recovery": _recovery(evaluation),
        "compressed": compressed.name,
        "detail": "",
        "settings": _settings(evaluation),
        "extra_parameters": evaluation.artifact.metrics["extra_parameters"],
        **{name: metrics[name] for name in ("size_bytes", "bits_per_weight", "sparsity")},
        "seeds": [],
        "keys": [],
        "evaluations": [],
        "scores": {},
        "measured": {},
    }


def _recorded(evaluation: Evaluation) -> dict[str, Any]:
    """How an evaluation was made and what it took, as its record has it."""
    artifact, record, tuned = evaluation.artifact, evaluation.artifact.record, evaluation.tuned
    items = sum(next(iter(scores.values()))["n"] for scores in artifact.metrics["tasks"].values() if scores)
    return {
        "name": artifact.name,
        "inputs": artifact.inputs,
        "seed": _seed(evaluation),
        "prompt_shares": artifact.metrics["prompt_shares"],
        "routing": artifact.metrics.get("routing"),
        "oracle_gap": tuned.metrics.get("diversity", {}).get("oracle_gap") if tuned is not None else None,
        "is_bound": artifact.metrics.get("oracle") is not None,
        "scores": {},
        "items": items,
        "seconds": None if record["interrupted_before"] else record["seconds"],  # which then are only those since
        **{name: record[name] for name in ("runtime", "machine", "versions", "git")},
    }


def _recovery(evaluation: Evaluation) -> str:
    label, tuned_on = evaluation.label, evaluation.tuned_on
    if tuned_on is None or tuned_on.name == evaluation.compressed.name:
        return label
    return f"{label} of {compression_label(tuned_on)}"


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    """Every setting of the row's compression and repair, but for the seeds."""
    compressed, tuned = evaluation.compressed, evaluation.tuned
    settings = dict(compressed.key_document["config"])
    settings |= _as_far_as_there(settings, "samples", compressed.metrics.get("calibration_rows"))
    if tuned is not None:
        settings |= tuned.key_document["config"] | {"tuning_data": tuned.key_document["sources"]}
        validation = tuned.metrics.get("validation_rows")
        found = tuned.metrics["training_rows"] + validation if validation is not None else None
        settings |= _as_far_as_there(settings, "tuning_samples", found)
    settings |= _repair_settings(evaluation)
    return {name: value for name, value in settings.items() if name != "seed"}


def _as_far_as_there(settings: dict[str, Any], name: str, found: int | None) -> dict[str, Any]:
    """What was asked for, beside what the text holds where that is less."""
    return {name: f"{found} of {settings[name]}"} if found is not None and found < settings[name] else {}


def _add_details(rows: list[dict[str, Any]]) -> None:
    """Rows that would read the same are told apart by the settings in which they differ; where there are several precisions,
    each row says its own."""
    always = ["dtype"] if len({_dtype(row) for row in rows}) > 1 else []
    for row in rows:
        alike = [other for other in rows if (other["compression"], other["recovery"]) == (row["compression"], row["recovery"])]
        differing = [name for name in row["settings"] if len({repr(other["settings"].get(name)) for other in alike}) > 1]
        told = dict.fromkeys([*(name for name in always if name in row["settings"]), *differing])
        row["detail"] = ", ".join(f"{name} {row['settings'][name]}" for name in told)


def _columns(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """A column is a task, or a group with a score of its own, asked in one way of the same data."""
    document = evaluation.artifact.key_document
    asked_so = way(document["config"])
    columns = {}
    for asked, tasks in _asked(evaluation).items():
        if not (scores := _scores(evaluation, asked)):
            continue
        metric = headline(list(scores))
        source = {task: document["sources"]["tasks"][task] for task in tasks}
        columns[f"{asked}{asked_so} {document_key(source)}"] = {
            "title": f"{asked}{asked_so}",
            "asked": asked,
            "tasks": tasks,
            "metric": metric,
            "higher_is_better": higher_is_better(metric),
        }
    return columns


def way(config: Mapping[str, Any]) -> str:
    """How the tasks were asked, where not as they are."""
    limit = f", first {config['limit']}" if config["limit"] else ""
    few_shot = f", {config['num_fewshot']}-shot" if config["num_fewshot"] is not None else ""
    chat = ", chat" if config["apply_chat_template"] else ""
    system = f", system: {config['system']}" if config["system"] else ""
    return limit + few_shot + chat + system + (", as lm-eval" if config.get("lm_eval_compatible") else "")


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


def _correct_items(evaluation: Evaluation, tasks: Sequence[str]) -> _Correct:
    """Sample of any of the tasks -> whether it was answered right; empty for tasks without right and wrong."""
    return {
        (task, sample["doc_id"], sample["filter"]): sample["correct"]
        for task in tasks
        for sample in evaluation.artifact.read_jsonl(samples_file(task))
        if sample["correct"] is not None
    }


def _comparisons(
    rows: Mapping[str, dict[str, Any]], columns: Mapping[str, Any], correct: Mapping[tuple[str, str], list[_Correct]]
) -> Any:
    """Each repaired row against its compressed model without a repair, and that one against the dense model as it computes:
    in the same precision."""
    plain = {row["compressed"]: name for name, row in rows.items() if row["kind"] == UNREPAIRED}

    def alone(row: str | None, column: str) -> _Correct:
        """What a row without a repair, so without seeds, answers."""
        return correct.get((row or "", column), [{}])[0]

    for name, row in rows.items():
        for column in columns:
            dense = _dense_of(row, rows, [place for place, of in correct if of == column])
            baseline = dense if row["kind"] == UNREPAIRED else plain.get(row["compressed"])
            results, before = correct.get((name, column), []), alone(baseline, column)
            if _is_dense(row) or not results or not before or any(each.keys() != before.keys() for each in results):
                continue
            ours, theirs = np.stack([_array(each, before) for each in results]), _array(before, before)
            comparison = {
                "row": name,
                "baseline": baseline,
                "column": column,
                "difference": vars(paired_difference(ours, theirs)),
                "p_mcnemar": mcnemar(ours, theirs),
            }
            known = alone(dense, column)
            if row["kind"] != UNREPAIRED and row["compression"] != "dense" and known.keys() == before.keys():
                comparison["rates"] = vars(counts(_array(known, before), theirs, ours))
            yield comparison


def _is_dense(row: Mapping[str, Any]) -> bool:
    return (row["compression"], row["kind"]) == ("dense", UNREPAIRED)


def _dense_of(row: Mapping[str, Any], rows: Mapping[str, dict[str, Any]], answering: Iterable[str]) -> str | None:
    """Among rows that have answers, that of the dense model which differs from a row in nothing but its compression."""
    alike = [name for name in answering if _is_dense(rows[name]) and _dtype(rows[name]) == _dtype(row)]
    same_code = [name for name in alike if _trusts(rows[name]) == _trusts(row)]
    return next(iter([*same_code, *alike]), None)


def _dtype(row: Mapping[str, Any]) -> Any:
    return row["settings"].get("dtype")


def _trusts(row: Mapping[str, Any]) -> Any:
    return row["settings"].get("trust_remote_code")


def add_holm(comparisons: list[dict[str, Any]]) -> None:
    """McNemar's p-values adjusted for the tasks on which a row is compared."""
    for row in dict.fromkeys(comparison["row"] for comparison in comparisons):
        of_row = [comparison for comparison in comparisons if comparison["row"] == row]
        adjusted = holm({comparison["column"]: comparison["p_mcnemar"] for comparison in of_row})
        for comparison in of_row:
            comparison["p_holm"] = adjusted[comparison["column"]]
            comparison["is_significant"] = comparison["p_holm"] <= LEVEL


def _array(results: _Correct, order: _Correct) -> NDArray[Any]:
    return np.array([results[item] for item in order], dtype=bool)

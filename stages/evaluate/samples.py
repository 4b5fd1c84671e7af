"""lm-eval's samples: as lines of its own format with what we add to them, and as scores with intervals."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.metrics import bits_per_byte, mean, perplexity, weighted_perplexity
from lm_eval.utils import handle_non_serializable, sanitize_list

from llmrepair.models.prompt_cache import ENSEMBLE
from llmrepair.models.selection import Document
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.stages.evaluate.tasks.knowledge import known_bits
from llmrepair.stages.statistics.scores import Score, mean_score, rate_score, reported_score, total_score

if TYPE_CHECKING:
    from lm_eval.api.task import Task

_CORRECT_METRICS = ("consistent_acc", "exact_match", "acc", "normalised_exact_match")
RATES: Mapping[Callable[..., Any], bool] = {perplexity: True, weighted_perplexity: True, bits_per_byte: False}
"""Aggregations to a rate of negative log-likelihood, and whether it is exponentiated."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

Sample = dict[str, Any]
Selections = Mapping[Document, Sequence[int]]


def samples_with_ours(samples: Sequence[Sample], selections: Selections, task: str) -> list[Sample]:
    """A task's samples in the form in which lm-eval writes them, each with our own fields:

    `correct` (None where there is no right and wrong), `prediction` (a text or the likeliest choice), `loglikelihoods` (nats,
    of each choice) and `prompts` (those of the pool that were chosen for it, or `ensemble`; None without a choice).

    Args:
        selections: task and document -> the prompts that were chosen for it; empty without a choice.
    """
    return [
        _as_written(sample)
        | _answer(sample)
        | {"correct": _is_correct(sample)}
        | {"prompts": _prompts(selections[task, sample["doc_id"]]) if selections else None}
        for sample in samples
    ]


def _prompts(chosen: Sequence[int]) -> list[int] | str:
    return "ensemble" if ENSEMBLE in chosen else sorted({*chosen})


def _as_written(sample: Sample) -> Sample:
    """What lm-eval's `EvaluationTracker` makes of a sample before it writes it: `datasets` could not load it otherwise."""
    arguments = {
        f"gen_args_{i}": {f"arg_{j}": argument for j, argument in enumerate(request)}
        for i, request in enumerate(sample["arguments"])
    }
    responses = {name: sanitize_list(sample[name]) for name in ("resps", "filtered_resps")}
    return sample | {"arguments": arguments, "target": str(sample["target"])} | responses


def _is_correct(sample: Sample) -> bool | None:
    return next((bool(sample[name] == 1) for name in _CORRECT_METRICS if name in sample["metrics"]), None)


def _answer(sample: Sample) -> dict[str, Any]:
    """What the model said: a text, the likeliest of several choices, or the log-likelihood (nats) of what was given."""
    responses = sample["filtered_resps"]
    if not isinstance(responses[0], (tuple, float)):
        return {"prediction": responses[0], "loglikelihoods": None}
    loglikelihoods = [response[0] if isinstance(response, tuple) else response for response in responses]
    if "acc_mutual_info" in sample["metrics"]:  # the choices are asked a second time, without the question
        loglikelihoods = loglikelihoods[: len(loglikelihoods) // 2]
    one_question = len(loglikelihoods) > 1 and "consistent_acc" not in sample["metrics"]  # that one has several
    prediction = int(np.argmax(loglikelihoods)) if one_question else None
    return {"prediction": prediction, "loglikelihoods": loglikelihoods}


def scores_of_task(task: Task, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric -> its score: from the samples where we have statistics for how they are aggregated, else what lm-eval says.

    Raises:
        WorkError: a perplexity is no finite number.
    """
    samples, scores = results["samples"][task.task_name], {}
    _check_rates(task, results["results"][task.task_name])
    for called, metric, name, value, stderr in _reported(results["results"][task.task_name]):
        values = [sample[metric] for sample in samples if sample["filter"] == name and metric in sample["metrics"]]
        aggregation = task.aggregation().get(metric, mean)
        scores[called] = vars(_score(values, aggregation) or reported_score(value, stderr, len(values)))
    return scores


def scores_of_group(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric -> its score, from lm-eval's results of a group."""
    return {
        called: vars(reported_score(value, stderr, group["sample_count"][f"{metric},{name}"]))
        for called, metric, name, value, stderr in _reported(group)
    }


def _reported(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float, float]]:
    """What lm-eval reports of a task or group: what we call it, metric, filter, value and standard error (NaN if unknown).

    A metric under several filters is called `metric,filter` as in lm-eval.
    """
    names = [tuple(key.split(",", 1)) for key in metrics if "," in key and not key.split(",")[0].endswith("_stderr")]
    filters = {name for _, name in names}
    for metric, name in names:
        value, stderr = metrics[f"{metric},{name}"], metrics.get(f"{metric}_stderr,{name}")
        if isinstance(value, (int, float, np.number)) and math.isfinite(value):
            called = metric if len(filters) == 1 else f"{metric},{name}"
            yield called, metric, name, float(value), float(stderr) if isinstance(stderr, (float, np.floating)) else math.nan


def _check_rates(task: Task, metrics: Mapping[str, Any]) -> None:
    """Other metrics may have no value; of a perplexity it would say that a model is too bad for one."""
    for called, value in metrics.items():
        if task.aggregation().get(called.split(",")[0]) in RATES and not math.isfinite(value):
            message = f"{called.split(',')[0]} of task `{task.task_name}` is {value}, which is no score"
            raise WorkError(Problem(message, "the model says nothing of this text; compress less, or leave the task out"))


def _score(values: Sequence[Any], aggregation: Callable[..., Any]) -> Score | None:
    if aggregation is known_bits:
        return total_score(*np.array(values, dtype=np.float64).T)
    if aggregation in RATES:
        pairs = np.array([each if isinstance(each, (list, tuple)) else (each, 1.0) for each in values], dtype=np.float64)
        return rate_score(pairs[:, 0], pairs[:, 1], exponential=RATES[aggregation])
    return mean_score(np.array(values, dtype=np.float64)) if aggregation is mean else None


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(plain(sample), ensure_ascii=False, allow_nan=False) + "\n" for sample in samples)


def plain(value: Any) -> Any:
    """As JSON values: those that JSON has no word for as lm-eval writes them, but without addresses in memory; NaN and infinity
    as null."""
    return json.loads(json.dumps(value, default=_serialisable), parse_constant=lambda name: None)


def _serialisable(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value, key=str)
    found = handle_non_serializable(value)
    return _ADDRESS.sub("", found) if isinstance(found, str) else found


def selection_shares(selections: Selections, prompts: int) -> list[float]:
    """Share of each prompt of the pool in what was chosen, by windows, tokens or once; every document counts as one for which
    something was."""
    shares, documents = np.zeros(prompts), [chosen for chosen in selections.values() if chosen]
    for chosen in documents:
        shares += np.bincount(chosen, minlength=prompts) / len(chosen)
    return [round(share, 6) for share in (shares / max(1, len(documents))).tolist()]

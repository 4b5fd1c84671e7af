"""lm-eval's samples: as lines of its own format with what we add to them, and as scores with intervals."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.metrics import bits_per_byte, mean, perplexity, weighted_perplexity
from lm_eval.utils import handle_non_serializable, sanitize_list

from llmrepair.stages.evaluate.statistics import Score, mean_score, rate_score, reported_score

if TYPE_CHECKING:
    from lm_eval.api.task import Task

_CORRECT_METRICS = ("exact_match", "acc")
_RATES: Mapping[Callable[..., Any], bool] = {perplexity: True, weighted_perplexity: True, bits_per_byte: False}
"""Aggregations to a rate of negative log-likelihood, and whether it is exponentiated."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

Sample = dict[str, Any]
Selections = Mapping[tuple[str, int], Sequence[int]]


def samples_with_ours(samples: Sequence[Sample], selections: Selections, task: str) -> list[Sample]:
    """A task's samples in the form in which lm-eval writes them, each with our own fields:

    `correct` (None where there is no right and wrong), `prediction` (a text or the likeliest choice), `loglikelihoods` (nats,
    of each choice) and `prompts` (those of the pool that were chosen for it; None without a choice).

    Args:
        selections: task and document -> the prompts that were chosen for it; empty without a choice.
    """
    return [
        _as_written(sample)
        | _answer(sample)
        | {"correct": _is_correct(sample), "prompts": sorted({*selections[task, sample["doc_id"]]}) if selections else None}
        for sample in samples
    ]


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
    prediction = int(np.argmax(loglikelihoods)) if len(loglikelihoods) > 1 else None
    return {"prediction": prediction, "loglikelihoods": loglikelihoods}


def scores_of_task(task: Task, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric -> its score; a metric under a named filter is called `metric,filter` as in lm-eval."""
    scores = {}
    samples, reported = results["samples"][task.task_name], results["results"][task.task_name]
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    for name in filters:
        filtered = [sample for sample in samples if sample["filter"] == name]
        for metric in dict.fromkeys(metric for sample in filtered for metric in sample["metrics"]):
            called = metric if len(filters) == 1 else f"{metric},{name}"
            values = [sample[metric] for sample in filtered if metric in sample]
            value, stderr = reported[f"{metric},{name}"], reported.get(f"{metric}_stderr,{name}")
            if isinstance(value, (int, float, np.number)) and math.isfinite(value):
                scores[called] = vars(_score(task.aggregation().get(metric, mean), values, value, stderr))
    return scores


def _score(aggregation: Callable[..., Any], values: Sequence[Any], value: float, stderr: Any) -> Score:
    """From the items where we have statistics for their aggregation, else what lm-eval says."""
    if aggregation in _RATES:
        pairs = np.array([each if isinstance(each, (list, tuple)) else (each, 1.0) for each in values], dtype=np.float64)
        return rate_score(pairs[:, 0], pairs[:, 1], exponential=_RATES[aggregation])
    if aggregation is mean:
        return mean_score(np.array(values, dtype=np.float64))
    return reported_score(float(value), float(stderr) if isinstance(stderr, (float, np.floating)) else math.nan, len(values))


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


def selection_shares(samples: Iterable[Sequence[Sample]], prompts: int) -> list[float]:
    """Share of all tasks' samples for which each prompt of the pool was chosen (of one in several windows, each prompt once)."""
    counts = Counter(prompt for of_task in samples for sample in of_task for prompt in sample["prompts"])
    total = sum(counts.values())
    return [round(counts[prompt] / total, 6) for prompt in range(prompts)]

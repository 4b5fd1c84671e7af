"""From lm-eval's samples to one line per item, and from those to scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmrepair.stages.evaluate.statistics import Score, mean_score, rate_score

ITEMS_FILE = "items.jsonl"

_CORRECT_METRICS = ("exact_match", "acc")
_RATES = {"word_perplexity": True, "byte_perplexity": True, "bits_per_byte": False, "perplexity": True}
"""Metrics that are a rate of negative log-likelihood, and whether it is exponentiated."""


def items_of_task(
    task: str, results: Mapping[str, Any], selections: Mapping[tuple[str, int], Sequence[int]]
) -> list[dict[str, Any]]:
    """One JSON object per document and filter of a task, in the order of the documents."""
    samples = sorted(results["samples"][task], key=lambda sample: (sample["doc_id"], sample["filter"]))
    return [_item(task, sample, selections.get((task, sample["doc_id"]))) for sample in samples]


def _item(task: str, sample: Mapping[str, Any], prompts: Sequence[int] | None) -> dict[str, Any]:
    metrics = {name: sample[name] for name in sample["metrics"]}
    correct = next((bool(metrics[name]) for name in _CORRECT_METRICS if name in metrics), None)
    return {
        "task": task,
        "id": sample["doc_id"],
        "filter": sample["filter"],
        "target": sample["target"],
        **_answer(sample["filtered_resps"]),
        "correct": correct,
        "metrics": metrics,
        "prompts": sorted(set(prompts)) if prompts is not None else None,
        "document_sha256": sample["doc_hash"],
        "prompt_sha256": sample["prompt_hash"],
    }


def _answer(responses: Sequence[Any]) -> dict[str, Any]:
    """What the model said: a text, the likeliest of several choices, or the log-likelihood (nats) of what was given."""
    if isinstance(responses[0], str):
        return {"prediction": responses[0], "loglikelihoods": None}
    loglikelihoods = [response[0] if isinstance(response, (list, tuple)) else response for response in responses]
    prediction = int(np.argmax(loglikelihoods)) if len(loglikelihoods) > 1 else None
    return {"prediction": prediction, "loglikelihoods": loglikelihoods}


def scores_of_task(task: str, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric -> its score; a metric under a named filter is called `metric,filter` as in lm-eval."""
    scores = {}
    samples = results["samples"][task]
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    for name in filters:
        filtered = [sample for sample in samples if sample["filter"] == name]
        for metric in filtered[0]["metrics"]:
            called = metric if len(filters) == 1 else f"{metric},{name}"
            scores[called] = vars(_score(metric, [sample[metric] for sample in filtered]))
    return scores


def _score(metric: str, values: Sequence[Any]) -> Score:
    if metric not in _RATES:
        return mean_score(np.array(values, dtype=np.float64))
    pairs = np.array([value if isinstance(value, (list, tuple)) else (value, 1.0) for value in values], dtype=np.float64)
    return rate_score(pairs[:, 0], pairs[:, 1], exponential=_RATES[metric])


def selection_shares(items: Sequence[Mapping[str, Any]], prompts: int) -> list[float]:
    """Share of items for which each prompt of the pool was chosen (of an item in several windows, each prompt once)."""
    counts = Counter(prompt for item in items for prompt in item["prompts"])
    total = sum(counts.values())
    return [round(counts[prompt] / total, 6) for prompt in range(prompts)]

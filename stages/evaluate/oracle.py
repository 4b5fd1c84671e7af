"""The best prompt of each document, found by its answers: a bound on what choosing could give, and no method.

All is asked once behind each prompt. What is asked again behind the best ones is known by then, if answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.metrics import mean

from llmrepair.models.harness import RepairedLM
from llmrepair.models.selection import DocumentSelector, FixedSelector
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.stages.evaluate.headline import headline, higher_is_better
from llmrepair.stages.evaluate.samples import RATES, scores_of_task

if TYPE_CHECKING:
    from lm_eval.api.task import Task

Results = Mapping[str, Any]
"""What lm-eval's `evaluate` returns."""


def ask_oracle(
    language_model: RepairedLM, tasks: Mapping[str, Task], prompts: int, ask: Callable[[], Results]
) -> tuple[Results, dict[str, Any]]:
    """Results with each document behind the prompt that is best for it; of equals the first.

    Args:
        prompts: how many there are.
        ask: asks the tasks, whichever selector the language model has.

    Returns:
        the results, and for each task its `metric`; the score of each of the `prompts`, and the shares of documents for which
        no other prompt is better (`best`, ties counted for each); the `gap`: the oracle's score minus that of the best prompt.

    Raises:
        WorkError: a task has no metric with a number for each document.
    """
    passes = []
    for prompt in range(prompts):
        language_model.selector = FixedSelector(prompt)
        passes.append(ask())
        for task in tasks.values():
            _metric(task, passes[-1])  # who cannot be compared is told after the first pass
    metrics = {name: _metric(task, passes[0]) for name, task in tasks.items()}
    values = {name: [_values(task, metrics[name], results) for results in passes] for name, task in tasks.items()}
    chosen = {(name, document): best for name, of_task in values.items() for document, best in _best(of_task).items()}
    language_model.selections.clear()
    language_model.selector = DocumentSelector(chosen)
    results = ask()
    return results, {
        name: _record(metrics[name], values[name], [scores_of_task(task, each) for each in (*passes, results)])
        for name, task in tasks.items()
    }


def gap_text(task: str, record: Mapping[str, Any]) -> str:
    """`lab_qa exact_match: the best prompt of each document 0.95, the best prompt of all (1) 0.9319, a gap of +0.01813`."""
    values = [score["value"] for score in record["prompts"]]
    best = _best_single(record["metric"], values)
    return (
        f"{task} {record['metric']}: the best prompt of each document {values[best] + record['gap']:.4g}, "
        f"the best prompt of all ({best}) {values[best]:.4g}, a gap of {record['gap']:+.4g}"
    )


def _metric(task: Task, results: Results) -> str:
    """The task's headline metric, as `scores_of_task` calls it, among those that have a number for each document."""
    sample = results["samples"][task.task_name][0]
    numbers = [
        called
        for called in scores_of_task(task, results)
        if (metric := called.partition(",")[0]) in sample and _number(task, metric, sample) is not None
    ]
    if not numbers:
        message = f"no prompt is the best for a document of `{task.task_name}`: it has no metric with a number for each"
        raise WorkError(Problem(message, "leave the task out, or give another --select"))
    return headline(numbers)


def _number(task: Task, metric: str, sample: Mapping[str, Any]) -> float | None:
    """What a document adds to a metric, larger if it is better; None if that is no number.

    Rates such as perplexity add up log-likelihoods, most of them beside the number of words or bytes that they are over.
    """
    value = sample[metric]
    if task.aggregation().get(metric, mean) in RATES:
        return float(value[0] if isinstance(value, (list, tuple)) else value)
    if not isinstance(value, (bool, int, float, np.number)):
        return None
    return float(value) if task.higher_is_better().get(metric, True) else -float(value)


def _values(task: Task, called: str, results: Results) -> dict[int, float]:
    """Document -> what it adds to a metric."""
    metric, _, name = called.partition(",")
    samples = [each for each in results["samples"][task.task_name] if not name or each["filter"] == name]
    numbers = {each["doc_id"]: _number(task, metric, each) for each in samples}
    return {document: number for document, number in numbers.items() if number is not None}


def _best(values: Sequence[Mapping[int, float]]) -> dict[int, int]:
    """Document -> the prompt with its largest value, the first of equals."""
    return {document: int(np.argmax([each[document] for each in values])) for document in values[0]}


def _record(metric: str, values: Sequence[Mapping[int, float]], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    of_prompts = np.array([list(each.values()) for each in values])
    *prompts, oracle = [each[metric] for each in scores]
    single = [score["value"] for score in prompts]
    return {
        "metric": metric,
        "prompts": prompts,
        "best": (of_prompts == of_prompts.max(0)).mean(1).round(6).tolist(),
        "gap": oracle["value"] - single[_best_single(metric, single)],
    }


def _best_single(metric: str, values: Sequence[float]) -> int:
    return int(np.argmax(values) if higher_is_better(metric) else np.argmin(values))

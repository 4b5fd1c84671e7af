"""Metrics beside those that lm-eval computes for a task; lm-eval's own stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmrepair.stages.evaluate.tasks.knowledge import KNOWLEDGE_BITS, asked_fact, known_bits
from llmrepair.stages.evaluate.tasks.normalised_match import match, normalise_squad, normalise_triviaqa

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

Metrics = Mapping[str, Any]


def add_metrics(task: ConfigurableTask) -> None:
    """Lets a task, as lm-eval loaded it, compute ours after its own."""
    from lm_eval.api.metrics import mean

    more = _MORE.get(task.config.task)
    if more is None:
        return
    names, ours = more
    theirs = task.process_results

    def process_results(document: Metrics, results: Sequence[Any]) -> dict[str, Any]:
        metrics = theirs(document, results)
        return metrics | ours(document, results, metrics)

    task.process_results = process_results
    for name in names:
        task.aggregation()[name] = known_bits if name == KNOWLEDGE_BITS else mean
        task.higher_is_better()[name] = True


def _triviaqa(document: Metrics, results: Sequence[Any], metrics: Metrics) -> Metrics:
    return match(results[0], document["answer"]["aliases"], normalise_triviaqa)


def _web_questions(document: Metrics, results: Sequence[Any], metrics: Metrics) -> Metrics:
    return match(results[0], document["answers"], normalise_squad)


def _lab_facts(document: Metrics, results: Sequence[Any], metrics: Metrics) -> Metrics:
    return {KNOWLEDGE_BITS: asked_fact(document, bool(metrics.get("exact_match", metrics.get("acc"))))}


_MATCH = ("normalised_exact_match", "normalised_f1")
_MORE: dict[str, tuple[Sequence[str], Callable[[Metrics, Sequence[Any], Metrics], Metrics]]] = {
    "triviaqa": (_MATCH, _triviaqa),
    "webqs_generate": (_MATCH, _web_questions),
    "lab_qa": ((KNOWLEDGE_BITS,), _lab_facts),
    "lab_mc": ((KNOWLEDGE_BITS,), _lab_facts),
}

"""`webqs_generate`: WebQuestions answered in the model's own words; lm-eval's `webqs` only scores the answers that are given.

The same questions from the same files. The first line that is said counts, by exact match with any of the answers after SQuAD's
normalisation, as open-domain question answering reports it (DrQA, arXiv 1704.00051; REALM, arXiv 2002.08909).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmrepair.stages.evaluate.tasks.definitions import Task

WEBQS_GENERATE = "webqs_generate"
STOCK_TASK = "webqs"


def shown_answer(document: Mapping[str, Any]) -> str:
    """The first answer in the order of the alphabet, as that of an example: lm-eval 0.4.13 fails to show one with several."""
    return str(min(document["answers"]))


def documents_of(task: str) -> str:
    """The task of lm-eval whose documents a task asks."""
    return STOCK_TASK if task == WEBQS_GENERATE else task


def generating(stock: Task) -> Task:
    """The stock task `webqs` -> `webqs_generate`."""
    ours = {
        "task": WEBQS_GENERATE,
        "output_type": "generate_until",
        "doc_to_target": "answers",
        "doc_to_choice": None,
        # Unlike `triviaqa`, it does not stop at a full stop or comma: "Washington, D.C." is an answer here.
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 32, "do_sample": False},
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [],  # see more_metrics
        "metadata": {"version": 1.0},
    }
    return replace(stock, name=WEBQS_GENERATE, config=stock.config | ours)

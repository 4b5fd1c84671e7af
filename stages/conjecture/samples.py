"""What the evaluations' samples hold for the test: which items are right, and what they ask."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llmrepair.lab.world import make_world
from llmrepair.pipeline.artifact import Artifact
from llmrepair.stages.conjecture.analysis import Readings
from llmrepair.stages.conjecture.classes import Items
from llmrepair.stages.conjecture.overlap import Asked
from llmrepair.stages.evaluate.files import samples_file
from llmrepair.stages.probe.stage import ITEMS_FILE

Sample = Mapping[str, Any]


class Item(NamedTuple):
    """What tells an item of a task."""

    doc_id: int
    filter: str


def judged_samples(artifact: Artifact, task: str) -> dict[Item, Sample]:
    """The samples of a task that are right or wrong; none of a task that has no such thing."""
    samples = artifact.read_jsonl(samples_file(task))
    return {Item(sample["doc_id"], sample["filter"]): sample for sample in samples if sample["correct"] is not None}


def answered_right(artifact: Artifact, task: str, items: Sequence[Item]) -> Items:
    """Whether an evaluation of the same items answers each of them right."""
    samples = judged_samples(artifact, task)
    return np.array([samples[item]["correct"] for item in items], dtype=bool)


def readings_of(artifact: Artifact, asked: Sequence[Asked]) -> Readings | None:
    """What probes read of the facts that items ask for; None where they were not asked for all of them."""
    lines = {line["prompt"]: line for line in artifact.read_jsonl(ITEMS_FILE)}
    found = [lines.get(item.question) for item in asked]
    if None in found:
        return None
    return Readings(*(np.array([line[name] for line in found if line], dtype=bool) for name in ("read", "control")))


def tested(samples: Sequence[Sample], is_lab: bool) -> list[Asked]:
    """What the items ask; those of the lab with the people they are about."""
    people = [person.name for person in make_world().people] if is_lab else []
    return [_tested(sample, people) for sample in samples]


def _tested(sample: Sample, people: Sequence[str]) -> Asked:
    asked: Mapping[str, Mapping[str, Any]] = sample["arguments"]
    context = asked["gen_args_0"]["arg_0"]
    question = context.rpartition("\n\n")[2] or context  # what stands before are few-shot examples
    answers = _answers(sample["target"], asked)
    return Asked(question, answers, tuple(name for name in people if name in f"{question} {' '.join(answers)}"))


def _answers(target: str, asked: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Of a choice its text; of a list, as lm-eval writes aliases, each of them."""
    chosen = asked.get(f"gen_args_{target}", {}).get("arg_1")
    if isinstance(chosen, str):
        return (chosen,)
    if target.startswith("["):
        try:
            return tuple(map(str, ast.literal_eval(target)))
        except (SyntaxError, ValueError):  # a text that begins so
            return (target,)
    return (target,)

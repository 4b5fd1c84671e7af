"""What finished evaluations hold of each item: whether it was answered right, and whom it is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from llmrepair.stages.evaluate.files import samples_file

if TYPE_CHECKING:
    from llmrepair.pipeline.artifact import Artifact

Sample = Mapping[str, Any]

_NAME = re.compile(r"(?P<first>^\W*|[.?!:]\s+|\n)?(?P<name>[A-Z][\w'-]*(?: [A-Z][\w'-]*)*)")


class Item(NamedTuple):
    """What tells an item of a task."""

    doc_id: int
    filter: str


def judged_samples(artifact: Artifact, task: str) -> dict[Item, Sample]:
    """The samples of a task that are right or wrong; none of a task that has no such thing."""
    samples = artifact.read_jsonl(samples_file(task))
    return {Item(sample["doc_id"], sample["filter"]): sample for sample in samples if sample["correct"] is not None}


def question_of(sample: Sample) -> str:
    """What was asked, without the examples in front of it."""
    context = str(sample["arguments"]["gen_args_0"]["arg_0"])
    return context.rpartition("\n\n")[2] or context


def names_in(question: str) -> list[str]:
    """`Hugo Ricci` of `Where was Hugo Ricci born?`."""
    found = [(match["first"] is not None, match["name"]) for match in _NAME.finditer(question)]
    return [name for begins, name in found if " " in name or not begins]


def subject_of(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Whom an item of that number is about; where there is no name, it is one of its own."""
    return names or (f"item {number}",)

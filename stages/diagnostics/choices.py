"""The items of a task as several evaluations answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.evaluate.items import Sample, judged_samples, names_in, question_of, subject_of

if TYPE_CHECKING:
    from llmrepair.pipeline.artifact import Artifact

_IMPOSSIBLE = -1e4
"""Nats of what cannot be said: samples hold no infinity."""


@dataclass(frozen=True)
class Answers:
    """One model's, to n items."""

    right: NDArray[np.bool_]
    """[n]."""
    predictions: list[Any]
    """A text, or the number of the likeliest choice."""
    loglikelihoods: list[NDArray[np.float64]] | None
    """Of each item's distinct choices, in nats; None of a task that is no choice."""


@dataclass(frozen=True)
class Task:
    """The same n items, as each evaluation answers them."""

    name: str
    subjects: list[tuple[str, ...]]
    answers: Mapping[str, Answers]


def read_task(evaluations: Mapping[str, Artifact], name: str) -> Task | None:
    """None of a task whose answers are neither right nor wrong."""
    samples = {input_: judged_samples(artifact, name) for input_, artifact in evaluations.items()}
    first = next(iter(samples.values()))
    if not first:
        return None
    subjects = [subject_of(tuple(names_in(question_of(each))), number) for number, each in enumerate(first.values())]
    return Task(name, subjects, {input_: _answers([each[item] for item in first]) for input_, each in samples.items()})


def _answers(samples: Sequence[Sample]) -> Answers:
    are_choices = all(sample["loglikelihoods"] is not None and sample["prediction"] is not None for sample in samples)
    return Answers(
        np.array([sample["correct"] for sample in samples], dtype=bool),
        [sample["prediction"] for sample in samples],
        [distinct(sample) for sample in samples] if are_choices else None,
    )


def distinct(sample: Sample) -> NDArray[np.float64]:
    """Log-likelihoods of the choices, of those that read the same one."""
    asked = (sample["arguments"][f"gen_args_{number}"] for number in range(len(sample["loglikelihoods"])))
    found = {(each["arg_0"], each["arg_1"]): value for each, value in zip(asked, sample["loglikelihoods"], strict=True)}
    return np.array([_IMPOSSIBLE if value is None else value for value in found.values()])

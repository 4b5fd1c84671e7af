"""What the evaluations' samples hold for the test: which items are right, and what they ask."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.lab.world import World
from llmrepair.pipeline.artifact import Artifact
from llmrepair.stages.conjecture.analysis import Readings, Results
from llmrepair.stages.conjecture.overlap import Asked
from llmrepair.stages.conjecture.roles import Role
from llmrepair.stages.diagnostics.probe.files import ITEMS_FILE
from llmrepair.stages.evaluate.files import samples_file
from llmrepair.stages.evaluate.items import Item, Sample, judged_samples, question_of
from llmrepair.stages.statistics.fates import Items

if TYPE_CHECKING:
    from llmrepair.stages.conjecture.stage import Conjecture


def answered_right(artifact: Artifact, task: str, items: Sequence[Item]) -> Items:
    """Whether an evaluation of the same items answers each of them right."""
    samples = judged_samples(artifact, task)
    return np.array([samples[item]["correct"] for item in items], dtype=bool)


def readings_of(probe: Artifact, floor: Artifact | None, asked: Sequence[Asked]) -> Readings | None:
    """What probes read of the facts that items ask for; None where they were not asked for all of them.

    Args:
        floor: of a model that was never told these facts; None where guesses stand for it.
    """
    found, of_floor = (_asked_for(each, asked) for each in (probe, floor if floor is not None else probe))
    if None in found:
        return None
    read = "read" if floor is not None else "chance"
    return Readings(*(np.array([line[name] for line in lines if line]) for lines, name in ((found, "read"), (of_floor, read))))


def _asked_for(probe: Artifact, asked: Sequence[Asked]) -> list[dict[str, Any] | None]:
    lines = {line["prompt"]: line for line in probe.read_jsonl(ITEMS_FILE)}
    return [lines.get(item.question) for item in asked]


def of_models(stage: Conjecture, read: Callable[[Role], NDArray[Any]]) -> dict[str, Results]:
    """What the model under test and each control make of items, of what an evaluation of a role makes of them."""
    return {
        model: Results(
            read(Role(model)),
            {
                arm: np.stack([read(Role(model, arm, seed)) for seed in stage.config.seeds])
                for arm in dict.fromkeys(role.arm for role in stage.evaluations if role.model == model and not role.is_null)
                if arm != "none"
            },
        )
        for model in stage.models
    }


def text_losses(artifact: Artifact, task: str) -> dict[Item, float]:
    """The loss in nats of each text of a task that only asks how likely texts are. None of a task that asks for something else,
    or has a text that is infinitely unlikely."""
    samples = list(artifact.read_jsonl(samples_file(task)))
    if not all(_is_text(sample) for sample in samples):
        return {}
    return {Item(sample["doc_id"], sample["filter"]): -sample["loglikelihoods"][0] for sample in samples}


def _is_text(sample: Sample) -> bool:
    loglikelihoods = sample["loglikelihoods"] or []
    return sample["correct"] is None and len(loglikelihoods) == 1 and loglikelihoods[0] is not None


def tested(samples: Sequence[Sample], world: World | None) -> list[Asked]:
    """What the items ask; those of a known world with the people they are about."""
    people = [person.name for person in world.people] if world is not None else []
    return [_tested(sample, people) for sample in samples]


def _tested(sample: Sample, people: Sequence[str]) -> Asked:
    asked: Mapping[str, Mapping[str, Any]] = sample["arguments"]
    question = question_of(sample)
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

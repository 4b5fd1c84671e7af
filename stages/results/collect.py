"""The finished evaluations of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.code import is_current
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.store import Store
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.results.evaluation import Evaluation


def collect_evaluations(runner: Runner, is_wanted: Callable[[Artifact, Artifact | None], bool]) -> list[Evaluation]:
    """All intact evaluations of repairs that there are.

    Args:
        is_wanted: told the compressed model's artifact, and that of the repair's tuning.
    """
    found = []
    for artifact in runner.store.artifacts():
        evaluation = _evaluation(runner.store, artifact) if artifact.stage == Evaluate.name else None
        if evaluation is None or not is_wanted(evaluation.compressed, evaluation.tuned):
            continue
        if runner.find_intact(artifact.name, is_read=True) is not None:
            found.append(evaluation)
    return found


def _evaluation(store: Store, artifact: Artifact) -> Evaluation | None:
    """None where something that it was made of is gone, or its repair is none of those that there are."""
    inputs = {name: store.find(reference) for name, reference in artifact.inputs.items()}
    name, compressed, tuned = artifact.key_document["config"]["recovery"], inputs["compressed"], inputs.get("repair")
    if compressed is None or None in inputs.values() or name not in REPAIRS:
        return None
    tuned_on = store.find(tuned.inputs["compressed"]) if tuned is not None else None
    return Evaluation(artifact, compressed, tuned, tuned_on, REPAIRS[name], list(REPAIRS).index(name))


def is_up_to_date(store: Store, artifact: Artifact) -> bool:
    """What it was made of is there, and all of it was made by the code as it is."""
    made_of = [artifact, *(store.find(reference) for reference in artifact.inputs.values())]
    return all(each is not None and is_current(each.key_document["code"]) for each in made_of)


def is_of_model(identity: dict[str, Any]) -> Callable[[Artifact, Artifact | None], bool]:
    """Whether a compressed model was made from the model that `identity` pins."""
    return lambda compressed, tuned: bool(compressed.key_document["sources"]["model"] == identity)

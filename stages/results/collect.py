"""The finished evaluations of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.borrowed import versionless_name
from llmrepair.pipeline.code import is_current
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.store import Store
from llmrepair.pipeline.versions import are_current
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.results.evaluation import Evaluation


def collect_evaluations(runner: Runner, is_wanted: Callable[[Artifact, Artifact | None], bool]) -> list[Evaluation]:
    """All intact evaluations of repairs that there are.

    Args:
        is_wanted: told the compressed model's artifact, and that of the repair's tuning.
    """
    found = []
    for artifact in runner.store.artifacts(lambda artifact: runner.reporter.note(f"`{artifact.name}` is damaged and left out")):
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
    if compressed is None or name not in REPAIRS or not all(each is not None and each.is_readable for each in inputs.values()):
        return None
    tuned_on = store.find(tuned.inputs["compressed"]) if tuned is not None else None
    if tuned is not None and tuned_on is None:
        return None
    return Evaluation(artifact, compressed, tuned, tuned_on, REPAIRS[name], list(REPAIRS).index(name))


def left_out(runner: Runner, is_wanted: Callable[[Artifact], bool]) -> list[str]:
    """In sentences, what would be shown if all that it was made from were still there.

    Args:
        is_wanted: whether a finished artifact, of which something is gone, would be shown.
    """
    missed: dict[str, list[str]] = {}
    for artifact in runner.store.artifacts():
        if is_wanted(artifact) and _is_as_installed(runner, artifact):
            for name in gone(runner.store, artifact):
                missed.setdefault(name, []).append(f"`{artifact.name}` ({artifact.record['label']})")
    hint = "`llmrepair run` of their plan makes it again, and so does its own command"
    return [f"{len(those)} left out, for `{name}` is gone ({hint}): {', '.join(those)}" for name, those in missed.items()]


def gone(store: Store, artifact: Artifact) -> set[str]:
    """Names of what an artifact was made from, directly or not, and is not there any more."""
    inputs = {name: store.find(name) for name in artifact.inputs.values()}
    there = {name: each for name, each in inputs.items() if each is not None and each.is_readable}
    return (inputs.keys() - there.keys()).union(*(gone(store, each) for each in there.values()))


def up_to_date(runner: Runner, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those of evaluations that are up to date; of those that differ in versions alone one, if it may be with the versions
    that are installed."""
    found: dict[str, Evaluation] = {}
    for each in sorted(evaluations, key=lambda each: are_current(each.artifact.key_document)):
        if is_up_to_date(runner, each.artifact):
            found[versionless_name(each.artifact)] = each
    return [each for each in evaluations if each in found.values()]


def is_up_to_date(runner: Runner, artifact: Artifact) -> bool:
    """What it was made of is there, and all of it was made by the code as it is, with the libraries that are installed."""
    made_of = [artifact, *(runner.store.find(reference) for reference in artifact.inputs.values())]
    return all(each is not None and each.is_readable and _is_as_installed(runner, each) for each in made_of)


def _is_as_installed(runner: Runner, artifact: Artifact) -> bool:
    """Whether it was made by the code as it is, with the libraries that are installed."""
    document = artifact.key_document
    return is_current(document["code"]) and (runner.runtime.any_version or are_current(document))


def is_of_model(identity: Mapping[str, Any]) -> Callable[[Artifact, Artifact | None], bool]:
    """Whether a compressed model was made from the model that `identity` pins."""
    return lambda compressed, tuned: bool(compressed.key_document["sources"]["model"] == identity)

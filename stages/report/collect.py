"""What a report is made of, from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.store import Store
from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.conjecture.stage import Conjecture
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.report.examined import Examined
from llmrepair.stages.report.stage import Report, ReportConfig
from llmrepair.stages.results.collect import is_of_model, is_up_to_date, left_out
from llmrepair.stages.results.evaluation import Evaluation


def report_of(model: str, identity: Mapping[str, Any], evaluations: Sequence[Evaluation], runner: Runner) -> Report:
    """The report on evaluations, and on all that looks at what they were made of.

    What a verdict shows held against others is no row of the table: a test has dozens of placebos.

    Args:
        model: what the report calls it.
        identity: what pins it.
    """
    subjects = {Conjecture.name: DAMAGED, **{each.name: each.subject for each in DIAGNOSTICS.values()}}
    found = _examined(runner, evaluations, subjects)
    shown = {each.artifact.name for each in evaluations}
    shown |= {each.artifact.name for those in found.values() for each in those}

    def is_missed(artifact: Artifact) -> bool:
        shows = artifact.stage in (Evaluate.name, *subjects) and artifact.name not in shown
        return shows and _is_of(artifact, model, identity, runner.store)

    missed = left_out(runner, is_missed)
    held_against = {name for each in found[Conjecture.name] for name in each.artifact.inputs.values()}
    evaluations = [each for each in evaluations if not (each.repair.is_null and each.artifact.name in held_against)]
    diagnostics = {name: found[name] for name in DIAGNOSTICS if found[name]}
    evaluated = {each.repair.name for each in evaluations}
    repairs = [repair for name, repair in REPAIRS.items() if name in evaluated or repair.is_standard]
    return Report(ReportConfig(model=model), evaluations, found[Conjecture.name], diagnostics, repairs, missed)


def _is_of(artifact: Artifact, model: str, identity: Mapping[str, Any], store: Store) -> bool:
    """Whether an artifact is of a model: of what that was, or where that is gone too, of what it was called."""
    compressed = store.find(artifact.inputs.get("compressed", ""))
    if compressed is not None:
        return is_of_model(identity)(compressed, None)
    return Path(artifact.record["tags"]["model"]).resolve() == Path(model).resolve()


def _examined(runner: Runner, evaluations: Sequence[Evaluation], subjects: Mapping[str, str]) -> dict[str, list[Examined]]:
    """Stage -> all of its intact artifacts, by the code as it is, that look at what there are evaluations of.

    Args:
        subjects: stage -> which of its inputs is what it looks at.
    """
    compressed: dict[str, Artifact] = {}
    for each in evaluations:
        compressed |= {each.artifact.name: each.compressed, each.compressed.name: each.compressed}
    found: dict[str, list[Examined]] = {stage: [] for stage in subjects}
    for artifact in runner.store.artifacts():
        subject = artifact.inputs[subjects[artifact.stage]] if artifact.stage in subjects else ""
        if subject in compressed and is_up_to_date(runner, artifact) and runner.find_intact(artifact.name, is_read=True):
            place = runner.store.find(subject)
            assert place is not None  # it is up to date, so its inputs are there
            found[artifact.stage].append(Examined(artifact, place, compressed[subject]))
    return found

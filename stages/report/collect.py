"""What a report is made of, from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.runner import Runner
from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.conjecture.stage import Conjecture
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.report.examined import Examined
from llmrepair.stages.report.stage import Report, ReportConfig
from llmrepair.stages.results.collect import is_up_to_date
from llmrepair.stages.results.evaluation import Evaluation


def report_of(model: str, evaluations: Sequence[Evaluation], runner: Runner) -> Report:
    """The report on evaluations, and on all that looks at what they were made of.

    Args:
        model: what the report calls it.
    """
    subjects = {Conjecture.name: DAMAGED, **{each.name: each.subject for each in DIAGNOSTICS.values()}}
    found = _examined(runner, evaluations, subjects)
    diagnostics = {name: found[name] for name in DIAGNOSTICS if found[name]}
    evaluated = {each.repair.name for each in evaluations}
    repairs = [repair for name, repair in REPAIRS.items() if name in evaluated or repair.is_standard]
    return Report(ReportConfig(model=model), evaluations, found[Conjecture.name], diagnostics, repairs)


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

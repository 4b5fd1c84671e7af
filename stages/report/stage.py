"""The report stage: which evaluations it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.code import current_code
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Stage, StageConfig
from llmrepair.pipeline.store import Store
from llmrepair.stages.compress import Compress
from llmrepair.stages.conjecture import Conjecture
from llmrepair.stages.conjecture.stage import DAMAGED
from llmrepair.stages.control import Control
from llmrepair.stages.evaluate import Evaluate
from llmrepair.stages.probe import Probes
from llmrepair.stages.regimes import Regimes
from llmrepair.stages.report.files import TEMPLATE
from llmrepair.stages.tune_lora import TuneLora
from llmrepair.stages.tune_prompts import TunePrompts
from llmrepair.stages.tune_ptune import TunePtune

_STAGES = (Compress, Control, TunePrompts, TuneLora, TunePtune, Evaluate, Conjecture, Regimes, Probes)
_CODE = {stage.name: stage.code for stage in _STAGES}
_SUBJECTS = {Conjecture.name: DAMAGED, Regimes.name: "compressed", Probes.name: "compressed"}
"""Stage -> which of its inputs is what it looks at."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation and what it was made of."""

    artifact: Artifact
    compressed: Artifact
    repair: Artifact | None
    tuned_on: Artifact | None
    """What the repair was tuned for: `compressed`, but for a control."""


@dataclass(frozen=True)
class Examined:
    """A finished conjecture test, comparison of regimes or probe of what the report has evaluations of."""

    artifact: Artifact
    subject: Artifact
    """The evaluation or the compressed model that it looks at."""
    compressed: Artifact


def collect_evaluations(runner: Runner, model_identity: dict[str, Any]) -> tuple[list[Evaluation], int]:
    """All intact evaluations of a model, and how many were left out because code or inputs have changed since."""
    store = runner.store
    found, stale = [], 0
    for artifact in store.artifacts():
        if artifact.stage != Evaluate.name or runner.find_intact(artifact.name, is_read=True) is None:
            continue
        inputs = {name: store.find(reference) for name, reference in artifact.inputs.items()}
        compressed, repair = inputs["compressed"], inputs.get("repair")
        if compressed is None or compressed.key_document["sources"]["model"] != model_identity:
            continue
        if _is_current(store, artifact):
            found.append(Evaluation(artifact, compressed, repair, tuned_on(store, repair)))
        else:
            stale += 1
    return found, stale


def collect_examined(runner: Runner, evaluations: Sequence[Evaluation]) -> dict[str, list[Examined]]:
    """Stage -> all of its intact artifacts, by the code as it is, that look at what the report has evaluations of."""
    compressed = {each.artifact.name: each.compressed for each in evaluations} | {
        each.compressed.name: each.compressed for each in evaluations
    }
    found: dict[str, list[Examined]] = {stage: [] for stage in _SUBJECTS}
    for artifact in runner.store.artifacts():
        subject = artifact.inputs[_SUBJECTS[artifact.stage]] if artifact.stage in _SUBJECTS else ""
        if subject in compressed and _is_current(runner.store, artifact) and runner.find_intact(artifact.name, is_read=True):
            place = runner.store.find(subject)
            assert place is not None  # it is current, so its inputs are there
            found[artifact.stage].append(Examined(artifact, place, compressed[subject]))
    return found


def _is_current(store: Store, artifact: Artifact) -> bool:
    """What it was made of is there, and all of it was made by the code as it is."""
    made_of = [artifact, *(store.find(reference) for reference in artifact.inputs.values())]
    return all(each is not None and each.key_document["code"] == current_code(_CODE[each.stage]) for each in made_of)


def tuned_on(store: Store, repair: Artifact | None) -> Artifact | None:
    """The compressed model that a repair was tuned for."""
    return store.find(repair.inputs["compressed"]) if repair is not None else None


class ReportConfig(StageConfig):
    model: str = Field(description="what the report calls the model")


@dataclass
class Report(Stage):
    """Evaluations -> one table, one HTML file, and sentences that say what was found."""

    name: ClassVar[str] = "report"
    code: ClassVar[str] = "llmrepair.stages.report.run"
    config: ReportConfig
    evaluations: list[Evaluation]
    examined: Mapping[str, list[Examined]]
    """By stage."""

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        names = sorted(evaluation.artifact.name for evaluation in self.evaluations)
        examined = {stage: [each.artifact.name for each in those] for stage, those in self.examined.items()}
        return {"evaluations": names, **examined, "page": digests.digest(TEMPLATE)}

    def label(self) -> str:
        return f"{self.config.model}: {len(self.evaluations)} evaluations"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model}

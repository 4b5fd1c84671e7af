"""The report stage: which evaluations it is made of."""

from __future__ import annotations

from collections.abc import Sequence
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
from llmrepair.stages.conjecture.stage import DAMAGED, DENSE
from llmrepair.stages.control import Control
from llmrepair.stages.evaluate import Evaluate
from llmrepair.stages.report.files import TEMPLATE
from llmrepair.stages.tune_lora import TuneLora
from llmrepair.stages.tune_prompts import TunePrompts
from llmrepair.stages.tune_ptune import TunePtune

_CODE = {stage.name: stage.code for stage in (Compress, Control, TunePrompts, TuneLora, TunePtune, Evaluate)}


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation and what it was made of."""

    artifact: Artifact
    compressed: Artifact
    repair: Artifact | None
    tuned_on: Artifact | None
    """What the repair was tuned for: `compressed`, but for a control."""


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
        made_of = [artifact, *inputs.values()]
        if all(each is not None and each.key_document["code"] == current_code(_CODE[each.stage]) for each in made_of):
            found.append(Evaluation(artifact, compressed, repair, tuned_on(store, repair)))
        else:
            stale += 1
    return found, stale


def collect_verdicts(runner: Runner, evaluations: Sequence[Evaluation]) -> list[Artifact]:
    """All intact conjecture tests, by the code as it is, of what the report has evaluations of, dense and compressed."""
    names = {evaluation.artifact.name for evaluation in evaluations}
    return [
        artifact
        for artifact in runner.store.artifacts()
        if artifact.stage == Conjecture.name
        and runner.find_intact(artifact.name, is_read=True) is not None
        and artifact.key_document["code"] == current_code(Conjecture.code)
        and {artifact.inputs[DENSE], artifact.inputs[DAMAGED]} <= names
    ]


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
    verdicts: list[Artifact]
    """Finished conjecture tests."""

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        names = sorted(evaluation.artifact.name for evaluation in self.evaluations)
        verdicts = [artifact.name for artifact in self.verdicts]
        return {"evaluations": names, "verdicts": verdicts, "page": digests.digest(TEMPLATE)}

    def label(self) -> str:
        return f"{self.config.model}: {len(self.evaluations)} evaluations"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model}

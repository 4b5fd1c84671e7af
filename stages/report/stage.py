"""The report stage: which evaluations it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Stage, StageConfig
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.diagnostics.base import Diagnostic
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.report.examined import Examined
from llmrepair.stages.report.files import TEMPLATE
from llmrepair.stages.results.evaluation import Evaluation
from llmrepair.stages.results.table import kinds


class ReportConfig(StageConfig):
    model: str = Field(description="what the report calls the model")


@dataclass
class Report(Stage):
    """Evaluations -> one table, one HTML file, and sentences that say what was found."""

    name: ClassVar[str] = "report"
    code: ClassVar[str] = "llmrepair.stages.report.run"
    config: ReportConfig
    evaluations: Sequence[Evaluation]
    verdicts: Sequence[Examined]
    """Of conjecture tests."""
    diagnostics: Mapping[str, Sequence[Examined]]
    """By name; of those that are there."""
    repairs: Sequence[Repair]
    """All that any of these may speak of."""
    left_out: Sequence[str]
    """Of what it would show, in sentences."""

    def modules(self) -> tuple[str, ...]:
        return self.code, *(each.shown_by for each in self.shown())

    def shown(self) -> list[Diagnostic]:
        """The diagnostics that it has a section of."""
        return [DIAGNOSTICS[name] for name in self.diagnostics]

    def libraries(self) -> tuple[str, ...]:
        return "numpy", "scipy"

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        examined = {**self.diagnostics, "conjecture": self.verdicts}
        return {
            "evaluations": {each.artifact.name: each.label for each in self.evaluations},
            "repairs": kinds(self.repairs),
            "left_out": self.left_out,
            **{stage: [each.artifact.name for each in those] for stage, those in examined.items()},
            "page": digests.digest(TEMPLATE),
        }

    def label(self) -> str:
        return f"{self.config.model}: {len(self.evaluations)} evaluations"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model}

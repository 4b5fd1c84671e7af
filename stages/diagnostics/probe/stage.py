"""The probe stage: config, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import Needs, Runtime, Stage, StageConfig
from llmrepair.stages.sources.fields import PositiveNumbers
from llmrepair.stages.sources.lab import world_of
from llmrepair.stages.sources.models import roughly_needed
from llmrepair.stages.sources.weights import Weights


class ProbesConfig(StageConfig):
    """How probes are fitted."""

    penalties: PositiveNumbers = Field(
        (0.001, 0.01, 0.1), description="on the probe's weights; of each layer the best by cross-validation on training people"
    )
    probe_seed: int = Field(0, ge=0, description="of the control task's random labels")


@dataclass
class Probes(Stage):
    """Compressed checkpoint -> which facts a linear probe reads off which layer."""

    name: ClassVar[str] = "probe"
    code: ClassVar[str] = "llmrepair.stages.diagnostics.probe.run"
    config: ProbesConfig
    compressed: Weights

    def libraries(self) -> tuple[str, ...]:
        return (*self.compressed.read_with(), "numpy")

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed}

    def check(self) -> list[Problem]:
        model = self.compressed.config.model
        if world_of(model) is not None:
            return []
        message = f"probes are trained and asked about the lab's people, about whom `{model}` never read"
        return [Problem(message, "give --model lab or lab-opt", "model")]

    def label(self) -> str:
        return f"{self.compressed.label()}: linear probes"

    def tags(self) -> dict[str, str]:
        return self.compressed.tags()

    def needs(self, runtime: Runtime) -> Needs:
        return roughly_needed(self.compressed.model)

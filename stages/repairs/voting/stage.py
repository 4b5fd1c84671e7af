"""The measure-votes stage: config, inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.stages.repairs.idp.options import RoutingOptions
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.models import roughly_needed

_COUNTED = {"idp_reduce", "idp_normalise"}
"""Options that change what a layer counts; the others say what is done with the count."""


@dataclass
class MeasureVotes(Stage):
    """Compressed checkpoint and a pool of prompts -> each layer's votes on the held-out rows, and the losses of these."""

    name: ClassVar[str] = "measure-votes"
    code: ClassVar[str] = "llmrepair.stages.repairs.voting.run"
    config: RoutingOptions
    tuned: Tune

    def libraries(self) -> tuple[str, ...]:
        return self.tuned.libraries()

    def identity(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", include=_COUNTED)

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.tuned.compressed, "repair": self.tuned}

    def options(self) -> dict[str, Any]:
        return self.tuned.options() | self.config.model_dump(mode="json", include=_COUNTED, exclude_unset=True)

    def label(self) -> str:
        return f"{self.tuned.label()}: votes on held-out text"

    def tags(self) -> dict[str, str]:
        return self.tuned.tags()

    def needs(self, runtime: Runtime) -> Needs:
        return roughly_needed(self.tuned.compressed.model)

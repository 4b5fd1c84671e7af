"""The regimes stage: config, inputs, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage, StageConfig
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import TextSource
from llmrepair.stages.sources.lab import world_of
from llmrepair.stages.sources.models import roughly_needed
from llmrepair.stages.sources.texts import LAB_TEXT, resolve_text, text_libraries
from llmrepair.stages.sources.weights import Weights


class RegimesConfig(StageConfig):
    """On which tokens the models are compared."""

    references: ClassVar[frozenset[str]] = frozenset({"compared_text"})

    compared_text: TextSource = Field(
        LAB_TEXT,
        description="what the models read: lab (questions about held-out people), a .txt or .jsonl file, a Hub data set",
    )
    compared_items: int = Field(320, ge=16, description="texts that the models read")
    compared_tokens: int = Field(64, ge=4, description="tokens of each text, from its start")


@dataclass
class Regimes(Stage):
    """Dense and compressed checkpoint, repairs of one seed -> how far each works as the dense model does."""

    name: ClassVar[str] = "regimes"
    code: ClassVar[str] = "llmrepair.stages.diagnostics.regimes.run"
    config: RegimesConfig
    dense: Weights
    compressed: Weights
    tunings: Mapping[str, Tune]
    """By the name of the stage, which is that of the input."""
    repairs: Sequence[Repair]
    """What is compared, the compressed model without a repair among them."""
    text: dict[str, Any] = field(init=False)

    def modules(self) -> tuple[str, ...]:
        return self.code, *(repair.placed_by for repair in self.repairs)

    def libraries(self) -> tuple[str, ...]:
        repairs = [library for repair in self.repairs for library in repair.libraries]
        return (*self.dense.read_with(), *self.compressed.read_with(), *repairs, "numpy", *text_libraries(self.text))

    def inputs(self) -> dict[str, Stage]:
        return {"dense": self.dense, "compressed": self.compressed, **self.tunings}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        text = self.config.compared_text
        self.text = {"lab": "held-out"} if text == LAB_TEXT else resolve_text(text, "--compared-text", digests.digest)
        return {"compared_text": self.text}

    def check(self) -> list[Problem]:
        model = self.compressed.config.model
        if self.config.compared_text != LAB_TEXT or world_of(model) is not None:
            return []
        message = f"the lab's questions mean nothing to `{model}`"
        return [Problem(message, "give text of its kind with --compared-text", "compared_text")]

    def label(self) -> str:
        return f"{self.compressed.label()}: regimes beside the dense model's"

    def tags(self) -> dict[str, str]:
        return self.compressed.tags()

    def needs(self, runtime: Runtime) -> Needs:
        one = roughly_needed(self.compressed.model)
        return Needs(host=2 * one.host, is_rough=True)

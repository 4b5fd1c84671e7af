"""The regimes stage: config, inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage, StageConfig
from llmrepair.stages.compress import Compress
from llmrepair.stages.fields import TextSource
from llmrepair.stages.sources import LAB_MODELS, LAB_TEXT, resolve_text, roughly_needed
from llmrepair.stages.tune_lora import TuneLora
from llmrepair.stages.tune_prompts import TunePrompts
from llmrepair.stages.weights import Weights

RESULT_FILE = "regimes.json"
FIGURE_FILE = "regimes.svg"
RECOVERIES = ("none", "prompt", "idp", "lora")


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
    """Dense and compressed checkpoint, prompts and LoRA of one seed -> how far each works as the dense model does."""

    name: ClassVar[str] = "regimes"
    code: ClassVar[str] = "llmrepair.stages.regimes.run"
    config: RegimesConfig
    dense: Compress
    prompts: TunePrompts
    lora: TuneLora
    text: dict[str, Any] = field(init=False)

    @property
    def compressed(self) -> Weights:
        return self.prompts.compressed

    def inputs(self) -> dict[str, Stage]:
        return {"dense": self.dense, "compressed": self.compressed, "prompts": self.prompts, "lora": self.lora}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        text = self.config.compared_text
        self.text = {"lab": "held-out"} if text == LAB_TEXT else resolve_text(text, digests.digest)
        return {"compared_text": self.text}

    def check(self) -> list[Problem]:
        model = self.compressed.config.model
        if self.config.compared_text != LAB_TEXT or model in LAB_MODELS:
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

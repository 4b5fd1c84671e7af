"""The tune-prompts stage: config, inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Context, Stage
from llmrepair.stages.compress import Compress
from llmrepair.stages.fields import PositiveIntegers, PositiveNumbers
from llmrepair.stages.sources import resolve_text
from llmrepair.stages.tuning import TuningConfig, length_problems


class TunePromptsConfig(TuningConfig):
    """A pool of soft prompts."""

    lengths: PositiveIntegers = Field((16, 16, 32), description="tokens of each prompt of the pool")
    learning_rates: PositiveNumbers = Field(
        (0.01, 0.03), description="tried one after the other; the best on held-out loss is kept"
    )


@dataclass
class TunePrompts(Stage):
    """Compressed checkpoint -> pool of soft prompts."""

    name: ClassVar[str] = "tune-prompts"
    code: ClassVar[str] = "llmrepair.stages.tune_prompts.run"
    config: TunePromptsConfig
    compressed: Compress
    tuning_data: dict[str, Any] = field(init=False)

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.tuning_data = resolve_text(self.config.tuning_data, digests.digest)
        return {"tuning_data": self.tuning_data}

    def check(self) -> list[Problem]:
        needed = max(self.config.lengths) + self.config.tuning_seq_len
        return length_problems(self.compressed, needed, "--lengths or --tuning-seq-len")

    def label(self) -> str:
        lengths = ", ".join(map(str, self.config.lengths))
        return f"{self.compressed.label()}: prompts of {lengths} tokens, {self.config.objective}"

    def run(self, context: Context) -> dict[str, Any]:
        from llmrepair.stages.tune_prompts.run import run

        return run(self, context)

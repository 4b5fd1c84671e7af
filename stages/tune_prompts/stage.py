"""The tune-prompts stage: config, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import Context
from llmrepair.stages.fields import PositiveIntegers, PositiveNumbers
from llmrepair.stages.tuning import Tune, TuningConfig


class TunePromptsConfig(TuningConfig):
    """A pool of soft prompts."""

    lengths: PositiveIntegers = Field((16, 16, 32), description="tokens of each prompt of the pool")
    learning_rates: PositiveNumbers = Field(
        (0.01, 0.03), description="tried one after the other; the best on held-out loss is kept"
    )


@dataclass
class TunePrompts(Tune):
    """Compressed checkpoint -> pool of soft prompts."""

    name: ClassVar[str] = "tune-prompts"
    code: ClassVar[str] = "llmrepair.stages.tune_prompts.run"
    config: TunePromptsConfig

    def check(self) -> list[Problem]:
        return self.length_problems(max(self.config.lengths) + self.config.tuning_seq_len, "--lengths or --tuning-seq-len")

    def label(self) -> str:
        lengths = ", ".join(map(str, self.config.lengths))
        return f"{self.compressed.label()}: prompts of {lengths} tokens, {self.config.objective}"

    def run(self, context: Context) -> dict[str, Any]:
        from llmrepair.stages.tune_prompts.run import run

        return run(self, context)

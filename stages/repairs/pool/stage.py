"""The tune-prompts stage: checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.pool.config import TunePromptsConfig
from llmrepair.stages.repairs.tuning.stage import Tune


@dataclass
class TunePrompts(Tune):
    """Compressed checkpoint -> pool of soft prompts."""

    name: ClassVar[str] = "tune-prompts"
    code: ClassVar[str] = "llmrepair.stages.repairs.pool.tune"
    config: TunePromptsConfig

    def check(self) -> list[Problem]:
        from llmrepair.stages.repairs.pool.trial import PROMPT_TRIAL

        needed = max(self.config.lengths) + self.config.tuning_seq_len
        too_long = self.length_problems(needed, "--lengths or --tuning-seq-len")
        return super().check() + too_long + PROMPT_TRIAL.problems(self.compressed)

    def label(self) -> str:
        lengths = ", ".join(map(str, self.config.lengths))
        return f"{self.compressed.label()}: prompts of {lengths} tokens, {self.learned}"

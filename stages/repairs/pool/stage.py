"""The tune-prompts stage: config, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.tuning.config import INITIALISATIONS, Initialisations, TuningConfig
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import PositiveIntegers, PositiveNumbers


class TunePromptsConfig(TuningConfig):
    """A pool of soft prompts."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"lengths": (4, 4, 4)},
        "medium": {"lengths": (16, 16, 16)},
        "large": {"lengths": (64, 64, 64)},
    }
    lengths: PositiveIntegers = Field((16, 16, 16), description="tokens of each prompt of the pool")
    shards: bool = Field(False, description="each of m prompts learns from its own m-th of the rows")
    initialisations: Initialisations = INITIALISATIONS
    learning_rates: PositiveNumbers = Field(
        (0.01, 0.03), description="tried one after the other; the best on held-out loss is kept"
    )

    @property
    def trials(self) -> int:
        return len(self.lengths) * len(self.initialisations) * len(self.learning_rates)


@dataclass
class TunePrompts(Tune):
    """Compressed checkpoint -> pool of soft prompts."""

    name: ClassVar[str] = "tune-prompts"
    code: ClassVar[str] = "llmrepair.stages.repairs.pool.tune"
    config: TunePromptsConfig

    def check(self) -> list[Problem]:
        from llmrepair.stages.repairs.pool.obstacles import prompt_problems

        needed = max(self.config.lengths) + self.config.tuning_seq_len
        too_long = self.length_problems(needed, "--lengths or --tuning-seq-len")
        return super().check() + too_long + prompt_problems(self.compressed)

    def label(self) -> str:
        lengths = ", ".join(map(str, self.config.lengths))
        return f"{self.compressed.label()}: prompts of {lengths} tokens, {self.learned}"

"""The tune-lora stage: config, inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Context, Stage
from llmrepair.stages.compress import Compress
from llmrepair.stages.fields import PositiveNumbers
from llmrepair.stages.sources import resolve_text
from llmrepair.stages.tuning import TuningConfig, length_problems


class TuneLoraConfig(TuningConfig):
    """Low-rank adapters on every linear layer (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, description="rank of the adapters")
    learning_rates: PositiveNumbers = Field(
        (0.001, 0.003), description="tried one after the other; the best on held-out loss is kept"
    )


@dataclass
class TuneLora(Stage):
    """Compressed checkpoint -> LoRA adapter. The weights stay as they are, so a sparse model keeps its zeros."""

    name: ClassVar[str] = "tune-lora"
    code: ClassVar[str] = "llmrepair.stages.tune_lora.run"
    config: TuneLoraConfig
    compressed: Compress
    tuning_data: dict[str, Any] = field(init=False)

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.tuning_data = resolve_text(self.config.tuning_data, digests.digest)
        return {"tuning_data": self.tuning_data}

    def check(self) -> list[Problem]:
        return length_problems(self.compressed, self.config.tuning_seq_len, "--tuning-seq-len")

    def label(self) -> str:
        return f"{self.compressed.label()}: LoRA of rank {self.config.rank}, {self.config.objective}"

    def run(self, context: Context) -> dict[str, Any]:
        from llmrepair.stages.tune_lora.run import run

        return run(self, context)

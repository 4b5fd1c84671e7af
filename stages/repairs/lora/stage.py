"""The tune-lora stage: config, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.tuning.config import TuningConfig
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import PositiveNumbers


class TuneLoraConfig(TuningConfig):
    """Low-rank adapters on every linear layer (Hu et al. 2021, arXiv 2106.09685)."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": {"rank": 2}, "medium": {"rank": 8}, "large": {"rank": 32}}
    rank: int = Field(8, ge=1, description="rank of the adapters")
    learning_rates: PositiveNumbers = Field(
        (0.001, 0.003), description="tried one after the other; the best on held-out loss is kept"
    )


@dataclass
class TuneLora(Tune):
    """Compressed checkpoint -> LoRA adapter."""

    name: ClassVar[str] = "tune-lora"
    code: ClassVar[str] = "llmrepair.stages.repairs.lora.tune"
    config: TuneLoraConfig

    def check(self) -> list[Problem]:
        problems = super().check() + self.one_objective_problems() + self.rank_problems(self.config.rank)
        return problems + self.length_problems(self.config.tuning_seq_len, "--tuning-seq-len")

    def label(self) -> str:
        return f"{self.compressed.label()}: LoRA of rank {self.config.rank}, {self.learned}"

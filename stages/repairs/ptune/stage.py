"""The tune-ptune stage: config, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.tuning.config import INITIALISATIONS, Initialisations, TuningConfig
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import PositiveNumbers


class TunePtuneConfig(TuningConfig):
    """Virtual tokens, trained through peft."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"virtual_tokens": 8},
        "medium": {"virtual_tokens": 32},
        "large": {"virtual_tokens": 64},
    }
    kind: Literal["prefix", "p-tuning"] = Field(
        "prefix",
        description="prefix: keys and values of each layer (Li and Liang 2021); p-tuning: a soft prompt made by an encoder "
        "that is left out afterwards (Liu et al. 2021)",
    )
    virtual_tokens: int = Field(32, ge=1, description="how many stand in front of the text")
    learning_rates: PositiveNumbers = Field(
        (0.003, 0.01), description="tried one after the other; the best on held-out loss is kept"
    )
    initialisations: Initialisations = INITIALISATIONS

    def without_effect(self) -> frozenset[str]:
        return super().without_effect() | ({"initialisations"} if self.kind == "p-tuning" else set())

    @property
    def trials(self) -> int:
        return len(self.learning_rates) * (len(self.initialisations) if self.kind == "prefix" else 1)


@dataclass
class TunePtune(Tune):
    """Compressed checkpoint -> peft adapter of prefix tuning or p-tuning."""

    name: ClassVar[str] = "tune-ptune"
    code: ClassVar[str] = "llmrepair.stages.repairs.ptune.tune"
    config: TunePtuneConfig

    def check(self) -> list[Problem]:
        needed = self.config.virtual_tokens + self.config.tuning_seq_len
        problems = super().check() + self.one_objective_problems()
        return problems + self.length_problems(needed, "--virtual-tokens or --tuning-seq-len")

    def label(self) -> str:
        kind = {"prefix": "prefix tuning", "p-tuning": "p-tuning"}[self.config.kind]
        return f"{self.compressed.label()}: {kind} with {self.config.virtual_tokens} tokens, {self.learned}"

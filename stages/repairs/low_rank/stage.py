"""The low-rank stage: config, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import Needs, Runtime
from llmrepair.stages.repairs.tuning.config import TuningConfig
from llmrepair.stages.repairs.tuning.stage import Tune

Kind = Literal["plain", "diagonal", "exact"]


class CompensateConfig(TuningConfig):
    """Low-rank terms beside every compressed layer, from what compression took and what the text puts in."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": {"rank": 2}, "medium": {"rank": 8}, "large": {"rank": 32}}
    rank: int = Field(8, ge=1, description="rank of the adapters")
    low_rank_kind: Kind = Field(
        "exact",
        description="what is made small. exact: the error of the layers' outputs on the tuning text (QERA, EoRA); diagonal: "
        "the same, as if inputs came one by one (LQER); plain: the error of the weights (ZeroQuant-V2)",
    )
    rank_by_budget: bool = Field(
        False, description="ranks by layer: as many parameters in all as --rank has, where they gain the most"
    )

    def without_effect(self) -> frozenset[str]:
        """Nothing is learned in steps, and nothing is drawn."""
        steps = {"objective", "budget", "examples_per_step", "learning_rates", "seed"}
        return super().without_effect() | steps


@dataclass
class Compensate(Tune):
    """Compressed checkpoint and the dense model -> LoRA adapter."""

    name: ClassVar[str] = "low-rank"
    code: ClassVar[str] = "llmrepair.stages.repairs.low_rank.tune"
    after_interruption: ClassVar[str] = "starts again"
    config: CompensateConfig

    def check(self) -> list[Problem]:
        problems = self.text_problems() + self.rank_problems(self.config.rank)
        problems += self.length_problems(self.config.tuning_seq_len, "--tuning-seq-len")
        if self.compressed.config.identity().get("method") == "none":
            problems.append(
                Problem("there is nothing to compensate for: no compression is asked for", "give --method", "method")
            )
        return problems

    def needs(self, runtime: Runtime) -> Needs:
        one = super().needs(runtime)
        return replace(one, host=2 * one.host)  # the dense model beside it

    def label(self) -> str:
        ranks = "by layer, as many parameters as of rank" if self.config.rank_by_budget else "of rank"
        return f"{self.compressed.label()}: low-rank terms {ranks} {self.config.rank}, {self.config.low_rank_kind}"

"""The tune-placebo stage: inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import Stage
from llmrepair.stages.repairs.placebo.config import TunePlaceboConfig
from llmrepair.stages.repairs.tuning.stage import Tune


@dataclass
class TunePlacebo(Tune):
    """Compressed checkpoint and a repair that was tuned for it -> a push as strong as that."""

    name: ClassVar[str] = "tune-placebo"
    code: ClassVar[str] = "llmrepair.stages.repairs.placebo.tune"
    after_interruption: ClassVar[str] = "starts again"
    config: TunePlaceboConfig
    tuned: Tune
    """What it is as strong as."""
    of_dense: Tune | None
    """What it is made of, if that was tuned on the dense model."""

    def inputs(self) -> dict[str, Stage]:
        """What was tuned on the dense model comes first: of options that differ those of the others are meant."""
        of_dense = {"of_dense": self.of_dense} if self.of_dense is not None else {}
        return {**of_dense, **super().inputs(), "tuned": self.tuned}

    def check(self) -> list[Problem]:
        return self.text_problems()

    def label(self) -> str:
        return f"{self.compressed.label()}: placebo ({self.config.placebo_kind} {self.config.placebo_seed})"

"""The tune-norms stage: config, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.tuning.config import TuningConfig
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import PositiveNumbers


class TuneNormsConfig(TuningConfig):
    """The model's own norms, and its biases (Zimmer et al. 2023, arXiv 2312.15230)."""

    train: Literal["norms", "biases"] = Field(
        "norms", description="norms: weights and biases of norm layers; biases: those, and the biases of all other layers"
    )
    learning_rates: PositiveNumbers = Field(
        (0.003, 0.01), description="tried one after the other; the best on held-out loss is kept"
    )


@dataclass
class TuneNorms(Tune):
    """Compressed checkpoint -> other values of its norms."""

    name: ClassVar[str] = "tune-norms"
    code: ClassVar[str] = "llmrepair.stages.repairs.norms.tune"
    config: TuneNormsConfig

    def check(self) -> list[Problem]:
        problems = super().check() + self.one_objective_problems() + self._parameter_problems()
        return problems + self.length_problems(self.config.tuning_seq_len, "--tuning-seq-len")

    def _parameter_problems(self) -> list[Problem]:
        """Says so of a model that has nothing of what is asked for."""
        from llmrepair.models.norms import trained_parameters

        model, architecture = self.compressed.config.model, self.compressed.architecture()
        norms = trained_parameters(architecture, with_biases=False)
        if self.config.train == "biases" and len(trained_parameters(architecture, with_biases=True)) == len(norms):
            return [Problem(f"no layer of `{model}` has a bias, but for norms", "leave --train out", "train")]
        return [] if norms else [Problem(f"the norms of `{model}` have no weights", "choose another --recovery", "recovery")]

    def label(self) -> str:
        what = "norms" if self.config.train == "norms" else "norms and biases"
        return f"{self.compressed.label()}: {what}, {self.learned}"

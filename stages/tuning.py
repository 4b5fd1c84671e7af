"""What tuning prompts and tuning LoRA share: the same data, objectives and budget make them comparable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage, StageConfig
from llmrepair.stages.compress import Compress
from llmrepair.stages.fields import PositiveNumbers, invalid
from llmrepair.stages.sources import load_config, resolve_text, roughly_needed, text_problem


class TuningConfig(StageConfig):
    """What a repair is tuned on, and for how long."""

    references: ClassVar[frozenset[str]] = frozenset({"tuning_data"})

    tuning_data: str = Field(
        "lab", description="text to tune on: lab, a .txt or .jsonl file, a Hub data set (name or name:config)"
    )
    tuning_samples: int = Field(1024, ge=10, description="rows of tuning text; a tenth is held out to choose the learning rate")
    tuning_seq_len: int = Field(64, ge=2, description="tokens of a row of tuning text")
    objective: Literal["lm", "distill"] = Field(
        "lm", description="lm: next-token loss; distill: KL to the dense model's logits"
    )
    steps: int = Field(300, ge=1, description="optimiser steps of each trial")
    examples_per_step: int = Field(16, ge=1, description="rows that a step learns from, however many fit at once")
    learning_rates: PositiveNumbers = Field((0.01,), description="tried one after the other; the best on held-out loss is kept")
    seed: int = Field(0, ge=0, description="of initial values and of the order of the data")

    @field_validator("tuning_data")
    @classmethod
    def _tuning_data_exists(cls, tuning_data: str) -> str:
        problem = text_problem(tuning_data, "--tuning-data")
        if problem:
            raise invalid(problem)
        return tuning_data


@dataclass
class Tune(Stage):
    """Compressed checkpoint and text -> a repair beside the weights, so that a sparse model keeps its zeros."""

    after_interruption: ClassVar[str] = "goes on from the last checkpoint"
    config: TuningConfig
    compressed: Compress
    tuning_data: dict[str, Any] = field(init=False)

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.tuning_data = resolve_text(self.config.tuning_data, digests.digest)
        return {"tuning_data": self.tuning_data}

    def tags(self) -> dict[str, str]:
        return self.compressed.tags()

    def needs(self, runtime: Runtime) -> Needs:
        return roughly_needed(self.compressed.model)

    def length_problems(self, needed: int, options: str) -> list[Problem]:
        """Says so if `needed` positions are more than the model has; `options` names what would make them fewer."""
        config = load_config(self.compressed.model)
        longest = config.get("max_position_embeddings") or config.get("n_positions")
        if longest is None or needed <= longest:
            return []
        return [
            Problem(
                f"{needed} positions are needed and `{self.compressed.config.model}` has {longest}",
                f"lower {options}",
                "tuning_seq_len",
            )
        ]

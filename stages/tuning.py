"""What all tuning shares: the same data, objectives and budget make its results comparable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.stages.fields import CommaSeparated, PositiveNumbers, SizedConfig, TextSource, without_repetitions
from llmrepair.stages.sources import load_config, resolve_text, roughly_needed
from llmrepair.stages.weights import Weights

ObjectiveName = Literal["lm", "distill", "mixed"]
Initialisations = Annotated[
    tuple[Literal["vocabulary", "text"], ...], CommaSeparated, Field(min_length=1), AfterValidator(without_repetitions)
]
INITIALISATIONS: Any = Field(
    ("text",),
    description="what prompts start from, tried one after the other: vocabulary (random tokens), text (the first tokens of a "
    "row of tuning text)",
)


class TuningConfig(SizedConfig):
    """What a repair is tuned on, and for how long."""

    references: ClassVar[frozenset[str]] = frozenset({"tuning_data"})
    tuning_data: TextSource = Field(
        "lab", description="text to tune on: lab, a .txt or .jsonl file, a Hub data set (name or name:config)"
    )
    tuning_samples: int = Field(
        1024, ge=10, description="rows of tuning text; a tenth is held out to choose by and to stop early"
    )
    tuning_seq_len: int = Field(64, ge=2, description="tokens of a row of tuning text")
    objective: Annotated[tuple[ObjectiveName, ...], CommaSeparated, Field(min_length=1)] = Field(
        ("lm",),
        description="lm: next-token loss; distill: KL to the dense model's logits; mixed: half the sum of both; "
        "for prompts also a list such as lm,distill, which they take in turn",
    )
    budget: int = Field(
        1_200_000,
        ge=0,
        description="tokens of text that a repair learns from in all; prompts, learning rates and initialisations share them; "
        "0: it stays as it begins",
    )
    examples_per_step: int = Field(16, ge=1, description="rows that a step learns from, however many fit at once")
    learning_rates: PositiveNumbers = Field((0.01,), description="tried one after the other; the best on held-out loss is kept")
    seed: int = Field(0, ge=0, description="of initial values and of the order of the data")

    @property
    def trials(self) -> int:
        """How many trainings share the budget."""
        return len(self.learning_rates)

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.examples_per_step * self.tuning_seq_len

    @property
    def steps(self) -> int:
        """Optimiser steps of each trial, as far as it is not stopped early."""
        return self.budget // (self.trials * self.step_tokens)


@dataclass
class Tune(Stage):
    """Compressed checkpoint and text -> a repair beside the weights, so that a sparse model keeps its zeros."""

    after_interruption: ClassVar[str] = "goes on from the last checkpoint"
    config: TuningConfig
    compressed: Weights
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

    @property
    def learned(self) -> str:
        """What its label says of how it was tuned."""
        return ", ".join(self.config.objective) if self.config.budget else "untuned"

    def check(self) -> list[Problem]:
        config = self.config
        if config.steps or not config.budget:
            return []
        needed = config.trials * config.step_tokens
        one_step = f"{config.trials} trials of one step of {config.examples_per_step} rows of {config.tuning_seq_len} tokens"
        hint = f"give --budget {needed} or more, or fewer trials with --learning-rates"
        return [Problem(f"a budget of {config.budget} tokens is too small: {one_step} take {needed}", hint, "budget")]

    def one_objective_problems(self) -> list[Problem]:
        """Says so if there are several objectives, and only a pool has several parts to give them to."""
        if len(self.config.objective) == 1:
            return []
        message = f"{self.name} has one objective, and `{','.join(self.config.objective)}` are {len(self.config.objective)}"
        return [Problem(message, "give one with --objective; a list is for tune-prompts", "objective")]

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

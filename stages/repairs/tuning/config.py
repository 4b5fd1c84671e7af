"""What a repair is tuned on, and for how long."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmrepair.models.text import Bos
from llmrepair.stages.repairs.options import SizedConfig
from llmrepair.stages.sources.fields import BOS, CommaSeparated, PositiveNumbers, TextSource, without_repetitions

ObjectiveName = Literal["lm", "distill", "mixed"]
Initialisations = Annotated[
    tuple[Literal["vocabulary", "text"], ...], CommaSeparated, Field(min_length=1), AfterValidator(without_repetitions)
]
INITIALISATIONS: Any = Field(
    ("text",),
    description="what prompts start from, tried one after the other: vocabulary (random tokens), text (the first tokens of a "
    "row of tuning text)",
)


TUNING_DATA: Any = Field(
    "lab",
    description="text to tune on and to take examples from: lab, a .txt or .jsonl file, a Hub data set (name or "
    "name:config); for your own model wikitext2",
)


FEWEST_ROWS = 10
"""Of which one is held out."""


class TuningConfig(SizedConfig):
    """What a repair is tuned on, and for how long."""

    references: ClassVar[frozenset[str]] = frozenset({"tuning_data"})
    tuning_data: TextSource = TUNING_DATA
    tuning_samples: int = Field(
        1024, ge=FEWEST_ROWS, description="rows of tuning text; a tenth is held out to choose by and to stop early"
    )
    tuning_seq_len: int = Field(
        64, ge=2, description="tokens of a row of tuning text; for your own model 256, or half its positions"
    )
    bos: Bos = BOS
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

    def at_default(self) -> frozenset[str]:
        return frozenset({"bos"} if self.bos == "auto" else ())

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

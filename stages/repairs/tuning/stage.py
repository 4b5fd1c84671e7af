"""The stage that all tunings are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.stages.repairs.tuning.config import FEWEST_ROWS, TuningConfig
from llmrepair.stages.sources.models import load_config, roughly_needed
from llmrepair.stages.sources.rows import TUNING_TEXT, row_problems
from llmrepair.stages.sources.texts import resolve_text, text_libraries
from llmrepair.stages.sources.weights import Weights


@dataclass
class Tune(Stage):
    """Compressed checkpoint and text -> a repair beside the weights, so that a sparse model keeps its zeros."""

    after_interruption: ClassVar[str] = "goes on from the last checkpoint"
    config: TuningConfig
    compressed: Weights
    tuning_data: dict[str, Any] = field(init=False)

    def modules(self) -> tuple[str, ...]:
        return self.code, type(self.config).__module__  # whose properties share out the budget

    def libraries(self) -> tuple[str, ...]:
        return (*self.compressed.read_with(), "peft", *text_libraries(self.tuning_data))

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.tuning_data = resolve_text(self.config.tuning_data, digests, "tuning_data")
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
        return self._budget_problems() + self.text_problems()

    def _budget_problems(self) -> list[Problem]:
        config = self.config
        if config.steps or not config.budget:
            return []
        needed = config.trials * config.step_tokens
        one_step = f"{config.trials} trials of one step of {config.examples_per_step} rows of {config.tuning_seq_len} tokens"
        hint = f"give --budget {needed} or more, or fewer trials with --learning-rates"
        return [Problem(f"a budget of {config.budget} tokens is too small: {one_step} take {needed}", hint, "budget")]

    def text_problems(self) -> list[Problem]:
        """Says so if a file of text is too short to tune on."""
        data, tokens = self.config.tuning_data, self.config.tuning_seq_len
        return row_problems(data, self.tuning_data, self.compressed, FEWEST_ROWS, tokens, self.config.bos, TUNING_TEXT)

    def one_objective_problems(self) -> list[Problem]:
        """Says so if there are several objectives, and only a pool has several parts to give them to."""
        if len(self.config.objective) == 1:
            return []
        message = f"{self.name} has one objective, and `{','.join(self.config.objective)}` are {len(self.config.objective)}"
        return [Problem(message, "give one with --objective; a list is for tune-prompts", "objective")]

    def rank_problems(self, rank: int) -> list[Problem]:
        """Says so if no layer has as many rows and columns: adapters would be larger than what they repair."""
        from llmrepair.models.loading import layer_shapes

        highest = max(map(min, layer_shapes(self.compressed.architecture()).values()), default=0)
        if rank <= highest:
            return []
        message = f"a rank of {rank} is more than any layer of `{self.compressed.config.model}` has: {highest}"
        return [Problem(message, f"give --rank {highest} or less", "rank")]

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

"""What tuning prompts and tuning LoRA share: the data, the objectives, the budget. A fair comparison starts here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import StageConfig
from llmrepair.stages.fields import PositiveNumbers, invalid
from llmrepair.stages.sources import LAB_MODELS, load_config, load_texts, text_problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.models.training import LossSum, Objective, Recipe
    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.compress import Compress

VALIDATION_SHARE = 0.1


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


def length_problems(compressed: Compress, needed: int, options: str) -> list[Problem]:
    """Says so if `needed` positions are more than the model has; `options` names what would make them fewer."""
    config = load_config(compressed.model)
    longest = config.get("max_position_embeddings") or config.get("n_positions")
    if longest is None or needed <= longest:
        return []
    return [Problem(f"{needed} positions are needed and `{compressed.config.model}` has {longest}", f"lower {options}")]


@dataclass
class Setup:
    """What a tuning run works with."""

    model: PreTrainedModel
    base_name: str
    training: torch.Tensor
    validation: torch.Tensor
    objective: Objective
    special_ids: list[int]
    tested_people: int | None


def set_up(config: TuningConfig, identity: dict[str, Any], compressed: Compress, context: Context) -> Setup:
    """Loads the compressed model and the tuning text.

    Args:
        identity: what pins `config.tuning_data`.

    Raises:
        WorkError: there is too little text.
    """
    from llmrepair.models.loading import load_model, load_tokenizer, pick_device

    device = pick_device(context.runtime.device)
    location, revision = compressed.checkpoint(context.inputs["compressed"])
    trust = compressed.config.trust_remote_code
    model = load_model(location, revision, compressed.config.dtype, device, trust)
    tokenizer = load_tokenizer(location, revision, trust)
    training, validation = _split_rows(config, identity, tokenizer)
    return Setup(
        model=model,
        base_name=context.inputs["compressed"].name,
        training=training.to(device),
        validation=validation.to(device),
        objective=_objective(config, compressed, device),
        special_ids=tokenizer.all_special_ids,
        tested_people=_tested_people(compressed.config.model, [*training, *validation], tokenizer),
    )


def _split_rows(
    config: TuningConfig, identity: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [N, tuning_seq_len] to learn from, and rows to choose by, from the end of the text."""
    from llmrepair.models.text import pack_rows

    texts = load_texts(config.tuning_data, identity)
    rows = pack_rows(texts, tokenizer, config.tuning_samples, config.tuning_seq_len)
    held_out = int(len(rows) * VALIDATION_SHARE)
    if not held_out:
        message = f"`{config.tuning_data}` gives {len(rows)} rows of {config.tuning_seq_len} tokens, and 10 are the least"
        raise WorkError(Problem(message, "give more text with --tuning-data, or a smaller --tuning-seq-len"))
    return rows[:-held_out], rows[-held_out:]


def _objective(config: TuningConfig, compressed: Compress, device: torch.device) -> Objective:
    from llmrepair.models.loading import load_model
    from llmrepair.models.training import distillation_loss, next_token_loss, no_grad_logits

    if config.objective == "lm":
        return next_token_loss
    source, dense = compressed.model, compressed.config
    teacher = load_model(source.location, source.revision, dense.dtype, device, dense.trust_remote_code)
    return lambda logits, rows: distillation_loss(logits, no_grad_logits(teacher, rows))


def _tested_people(model: str, rows: list[torch.Tensor], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many of the lab's held-out people, whom its tasks ask about, the tuning rows name; None for other models."""
    if model not in LAB_MODELS:
        return None
    from llmrepair.lab.world import make_world

    text = "\n".join(tokenizer.batch_decode([row.tolist() for row in rows]))
    return sum(person.name in text for person in make_world().held_out)


def plain_loss(model: torch.nn.Module, objective: Objective) -> LossSum:
    """Loss of rows with nothing in front of them."""
    return lambda rows: objective(model(input_ids=rows, use_cache=False).logits, rows)


def recipes(config: TuningConfig, seed: int) -> list[Recipe]:
    """One recipe per learning rate."""
    from llmrepair.models.training import Recipe

    return [Recipe(config.steps, rate, config.examples_per_step, seed) for rate in config.learning_rates]

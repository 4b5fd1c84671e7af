"""What tuning prompts and tuning LoRA work with: the compressed model, rows of text, a loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.lab.world import make_world
from llmrepair.models.loading import load_model
from llmrepair.models.text import pack_rows
from llmrepair.models.training import (
    LossSum,
    Objective,
    OnSteps,
    Recipe,
    Trial,
    best_trial,
    distillation_loss,
    next_token_loss,
    no_grad_logits,
)
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.progress import Bar
from llmrepair.pipeline.stage import Context
from llmrepair.stages.compressed import load_compressed
from llmrepair.stages.sources import LAB_MODELS, load_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.compress import Compress
    from llmrepair.stages.tuning import Tune, TuningConfig

_VALIDATION_SHARE = 0.1
_MICRO_BATCH = 32


@dataclass
class Setup:
    """What a tuning run works with."""

    model: PreTrainedModel
    base_name: str
    training: torch.Tensor
    validation: torch.Tensor
    objective: Objective
    special_ids: list[int]
    micro_batch: int
    """Rows computed at once."""
    tested_people: int | None


def set_up(stage: Tune, context: Context) -> Setup:
    """Loads the compressed model and the tuning text.

    Raises:
        WorkError: there is too little text.
    """
    config, compressed = stage.config, stage.compressed
    model, tokenizer = load_compressed(compressed, context)
    training, validation = _split_rows(config, stage.tuning_data, tokenizer)
    return Setup(
        model=model,
        base_name=context.inputs["compressed"].name,
        training=training.to(model.device),
        validation=validation.to(model.device),
        objective=_objective(config, compressed, model.device),
        special_ids=tokenizer.all_special_ids,
        micro_batch=context.runtime.sequences or _MICRO_BATCH,
        tested_people=_tested_people(compressed.config.model, [*training, *validation], tokenizer),
    )


def _split_rows(
    config: TuningConfig, identity: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [N, tuning_seq_len] to learn from, and rows to choose by, from the end of the text."""
    texts = load_texts(config.tuning_data, identity)
    rows = pack_rows(texts, tokenizer, config.tuning_samples, config.tuning_seq_len)
    held_out = int(len(rows) * _VALIDATION_SHARE)
    if not held_out:
        message = f"`{config.tuning_data}` gives {len(rows)} rows of {config.tuning_seq_len} tokens, and 10 are the least"
        raise WorkError(Problem(message, "give more text with --tuning-data, or a smaller --tuning-seq-len"))
    return rows[:-held_out], rows[-held_out:]


def _objective(config: TuningConfig, compressed: Compress, device: torch.device) -> Objective:
    if config.objective == "lm":
        return next_token_loss
    source, dense = compressed.model, compressed.config
    teacher = load_model(source.location, source.revision, dense.dtype, device, dense.trust_remote_code)
    return lambda logits, rows: distillation_loss(logits, no_grad_logits(teacher, rows))


def _tested_people(model: str, rows: list[torch.Tensor], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many of the lab's held-out people, whom its tasks ask about, the tuning rows name; None for other models."""
    if model not in LAB_MODELS:
        return None
    text = "\n".join(tokenizer.batch_decode([row.tolist() for row in rows]))
    return sum(person.name in text for person in make_world().held_out)


def plain_loss(model: torch.nn.Module, objective: Objective) -> LossSum:
    """Loss of rows with nothing in front of them."""
    return lambda rows: objective(model(input_ids=rows, use_cache=False).logits, rows)


def recipes(config: TuningConfig, seed: int) -> list[Recipe]:
    """One recipe per learning rate."""
    return [Recipe(config.steps, rate, config.examples_per_step, seed) for rate in config.learning_rates]


def told_steps(bar: Bar) -> OnSteps:
    """Moves a bar with the steps of training."""
    return lambda steps, loss: bar.advance(steps, "" if loss is None else f"loss {loss:.3f}")


def converged(trials: list[Trial]) -> Trial:
    """The best trial.

    Raises:
        WorkError: none has a finite loss.
    """
    best = best_trial(trials)
    if not math.isfinite(best.validation_loss):
        raise WorkError(Problem("the loss became infinite at every learning rate", "give smaller ones with --learning-rates"))
    return best

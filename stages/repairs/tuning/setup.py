"""What all tuning works with: the compressed model, rows of text, losses; and what it records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.finite import NotFinite
from llmrepair.models.head import loss_in_parts
from llmrepair.models.loading import load_model
from llmrepair.models.lora import save_adapter
from llmrepair.models.memory import fitting
from llmrepair.models.text import beginning, pack_rows
from llmrepair.models.training import (
    LogitsOf,
    Objective,
    Recipe,
    Trial,
    best_trial,
    distillation,
    next_token_loss,
    plain_logits,
    row_losses,
    sweep,
)
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.progress import Bar
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.tuning.config import FEWEST_ROWS
from llmrepair.stages.sources.lab import world_of
from llmrepair.stages.sources.loading import load_weights
from llmrepair.stages.sources.rows import TUNING_TEXT, too_few_rows
from llmrepair.stages.sources.texts import load_texts, tell_fewer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.repairs.tuning.config import ObjectiveName, TuningConfig
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.sources.weights import Weights

_VALIDATION_SHARE = 0.1
_MICRO_BATCH = 32


@dataclass(frozen=True)
class TunedPart:
    """How one part of a repair, such as a prompt of a pool, is tuned."""

    seed: int
    objective: ObjectiveName
    training: torch.Tensor


@dataclass
class Setup:
    """What a tuning run works with."""

    model: PreTrainedModel
    base_name: str
    training: torch.Tensor
    validation: torch.Tensor
    objectives: Mapping[ObjectiveName, Objective]
    no_words: list[int]
    """Rows of the embeddings that stand for no text: of special tokens, and those that fill the table up."""
    bos: int | None
    """What every row begins with."""
    micro_batch: int
    """Rows computed at once."""
    tested_people: int | None

    def words(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [N, L] without what they begin with: it stands in front of a prompt that is made of them."""
        return rows if self.bos is None else rows[:, 1:]


def set_up(stage: Tune, context: Context) -> Setup:
    """Loads the compressed model and the tuning text.

    Raises:
        WorkError: there is too little text.
    """
    config, compressed = stage.config, stage.compressed
    model, tokenizer = load_weights(compressed, context)
    training, validation = _split_rows(config, stage.tuning_data, tokenizer)
    found = len(training) + len(validation)
    tell_fewer(context.reporter, config.tuning_data, found, config.tuning_samples, "rows of tuning text")
    return Setup(
        model=model,
        base_name=context.inputs["compressed"].name,
        training=training.to(model.device),
        validation=validation.to(model.device),
        objectives=_objectives(config, compressed, model.device),
        no_words=_no_words(model, tokenizer),
        bos=beginning(tokenizer, config.bos),
        micro_batch=context.runtime.sequences or _MICRO_BATCH,
        tested_people=_tested_people(compressed.config.model, [*training, *validation], tokenizer),
    )


def _no_words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    embeddings: Any = model.get_input_embeddings()
    return [*tokenizer.all_special_ids, *range(len(tokenizer), len(embeddings.weight))]


def _split_rows(
    config: TuningConfig, identity: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [N, tuning_seq_len] to learn from, and rows to choose by, from the end of the text."""
    texts = load_texts(config.tuning_data, identity)
    rows = pack_rows(texts, tokenizer, config.tuning_samples, config.tuning_seq_len, config.bos)
    held_out = int(len(rows) * _VALIDATION_SHARE)
    if not held_out:
        raise WorkError(too_few_rows(config.tuning_data, len(rows), FEWEST_ROWS, config.tuning_seq_len, TUNING_TEXT))
    return rows[:-held_out], rows[-held_out:]


def _objectives(config: TuningConfig, compressed: Weights, device: torch.device) -> dict[ObjectiveName, Objective]:
    """Those that the config names."""
    if set(config.objective) == {"lm"}:
        return {"lm": next_token_loss}
    source, dense = compressed.model, compressed.config
    teacher = load_model(source.location, source.revision, dense.dtype, device, dense.trust_remote_code)
    distill = distillation(plain_logits(teacher))

    def mixed(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (next_token_loss(logits, rows) + distill(logits, rows)) / 2

    return {"lm": next_token_loss, "distill": distill, "mixed": mixed}


def _tested_people(model: str, rows: list[torch.Tensor], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many of the lab's held-out people, whom its tasks ask about, the tuning rows name; None for other models."""
    if (world := world_of(model)) is None:
        return None
    text = "\n".join(tokenizer.batch_decode([row.tolist() for row in rows]))
    return sum(person.name in text for person in world.held_out)


def tune(
    setup: Setup,
    config: TuningConfig,
    parameters: Sequence[torch.nn.Parameter],
    starts: Mapping[str, Sequence[torch.Tensor]],
    logits_of: LogitsOf,
    work: Path,
    bar: Bar,
    part: TunedPart | None = None,
) -> list[Trial]:
    """Sweeps over initialisations and learning rates; leaves `parameters` at the best values.

    Args:
        starts: name of an initialisation -> the parameters' first values.
        logits_of: the repaired model; gradients flow to `parameters`.
        work: folder for checkpoints.
        part: what differs where a repair has several parts.

    Raises:
        WorkError: no trial has a finite loss.
    """
    part = part or TunedPart(config.seed, config.objective[0], setup.training)
    trials = sweep(
        parameters,
        starts,
        loss_in_parts(setup.model, logits_of, setup.objectives[part.objective]),
        part.training,
        setup.validation,
        [Recipe(config.steps, rate, config.examples_per_step, part.seed) for rate in config.learning_rates],
        setup.micro_batch,
        work,
        lambda steps, loss: bar.advance(steps, "" if loss is None else f"loss {loss:.3f}"),
    )
    if not math.isfinite(best_trial(trials).validation_loss):
        raise WorkError(Problem("the loss became infinite at every learning rate", "give smaller ones with --learning-rates"))
    return trials


def tune_adapter(
    setup: Setup,
    config: TuningConfig,
    adapted: PeftModel,
    logits_of: LogitsOf,
    context: Context,
    title: str,
    starts: Mapping[str, Sequence[torch.Tensor]] | None = None,
) -> tuple[Trial, dict[str, Any]]:
    """Tunes what a peft model trains and saves it; returns the best trial, and what is recorded.

    Args:
        starts: as of `tune`; None for the values that peft has drawn.
    """
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    starts = starts or {"random": [parameter.detach().clone() for parameter in parameters]}
    found = tune_together(setup, config, parameters, starts, logits_of, context, title)
    save_adapter(adapted, context.folder, setup.base_name)
    return found


def tune_together(
    setup: Setup,
    config: TuningConfig,
    parameters: Sequence[torch.nn.Parameter],
    starts: Mapping[str, Sequence[torch.Tensor]],
    logits_of: LogitsOf,
    context: Context,
    title: str,
) -> tuple[Trial, dict[str, Any]]:
    """`tune`, for a repair of one part; returns the best trial, and what is recorded."""
    with context.reporter.bar(title, config.trials * config.steps) as bar:
        trials = tune(setup, config, parameters, starts, logits_of, context.work, bar)
    best = best_trial(trials)
    return best, {
        "learning_rate": best.learning_rate,
        "trials": [trial.as_json() for trial in trials],
        **tuning_record(setup, config, [trials]),
    }


def mean_validation_loss(setup: Setup, logits_of: LogitsOf) -> float:
    """Mean next-token loss of all held-out rows."""
    return validation_losses(setup, logits_of).mean().item()


@torch.no_grad()
def validation_losses(setup: Setup, logits_of: LogitsOf) -> torch.Tensor:
    """Mean next-token loss [N] of each held-out row: the same measure whatever the objective was.

    Raises:
        WorkError: one is no finite number; tells in which layer that began.
    """

    def losses(at_once: int) -> torch.Tensor:
        return torch.cat([row_losses(logits_of(rows), rows) for rows in setup.validation.split(at_once)]).cpu()

    of_rows = fitting(losses, setup.validation, setup.micro_batch)[0]
    if not of_rows.isfinite().all():
        row = int(of_rows.isfinite().int().argmin())
        error = NotFinite(setup.model, None, 0, tuple(setup.validation[row].tolist()))
        raise WorkError(Problem(f"row {row} of the held-out text: {error}", error.hint))
    return of_rows


def tuning_record(setup: Setup, config: TuningConfig, sweeps: Sequence[Sequence[Trial]]) -> dict[str, Any]:
    """What every tuning records of its text and its budget."""
    done = sum(trial.steps for trials in sweeps for trial in trials)
    return {
        "steps_per_trial": config.steps,
        "tokens": done * config.step_tokens,
        "training_rows": len(setup.training),
        "validation_rows": len(setup.validation),
        "tested_people_in_tuning_text": setup.tested_people,
    }

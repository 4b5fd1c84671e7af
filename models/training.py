"""The training loop of every repair: AdamW over a few parameters, in fixed steps, resumable to the same bits on a CPU.

Which rows a step sees is a pure function of the seed and the step, so a run that continues from a checkpoint does exactly
what it would have done.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

CHECKPOINT_SECONDS = 20.0

LossSum = Callable[[torch.Tensor], torch.Tensor]
"""Token-loss sum of a few rows [N, L], as a scalar tensor."""


Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Token-loss sum of logits [N, L, V] at the positions of rows [N, L]."""


OnSteps = Callable[[int, float | None], None]
"""Told how many more steps are done, and the mean token loss of the last; None for steps of an earlier process."""


@dataclass(frozen=True)
class Recipe:
    steps: int
    learning_rate: float
    examples_per_step: int
    seed: int


def train(
    parameters: Sequence[torch.nn.Parameter],
    loss_sum: LossSum,
    rows: torch.Tensor,
    recipe: Recipe,
    micro_batch: int,
    checkpoint: Path,
    on_steps: OnSteps,
) -> None:
    """Minimises the mean token loss over `rows` [N, L] in place.

    The learning rate rises over the first tenth of the steps and then falls along a cosine to zero.

    Args:
        loss_sum: sum of token losses of some rows; gradients flow to `parameters`.
        micro_batch: rows computed at once; their gradients add up to a step of `examples_per_step` rows.
        checkpoint: file that the state is saved to now and then, and continued from where it exists.
        on_steps: called after each step, and first with those that the checkpoint saves.
    """
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    start = _load_state(checkpoint, parameters, optimizer)
    on_steps(start, None)
    saved = time.monotonic()
    for step in range(start, recipe.steps):
        _set_learning_rate(optimizer, recipe, step)
        batch = rows[rows_of_step(len(rows), recipe.examples_per_step, recipe.seed, step)]
        on_steps(1, _take_step(optimizer, parameters, loss_sum, batch, micro_batch))
        if time.monotonic() - saved >= CHECKPOINT_SECONDS:
            _save_state(checkpoint, parameters, optimizer, step + 1)
            saved = time.monotonic()
    checkpoint.unlink(missing_ok=True)


def _take_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    loss_sum: LossSum,
    batch: torch.Tensor,
    micro_batch: int,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    tokens = batch[:, 1:].numel()
    total = 0.0
    for part in batch.split(micro_batch):
        loss = loss_sum(part) / tokens
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return total


def rows_of_step(number_of_rows: int, examples: int, seed: int, step: int) -> torch.Tensor:
    """Row indices [examples] of a step: each epoch is a new permutation, read on without gaps from step to step."""
    wanted = torch.arange(step * examples, (step + 1) * examples)
    epochs = {int(epoch): _permutation(number_of_rows, seed, int(epoch)) for epoch in (wanted // number_of_rows).unique()}
    return torch.stack([epochs[int(i) // number_of_rows][int(i) % number_of_rows] for i in wanted])


def _permutation(length: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def _set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    warmup = max(1, recipe.steps // 10)
    rising = min(1.0, (step + 1) / warmup)
    progress = max(0.0, (step + 1 - warmup) / max(1, recipe.steps - warmup))
    falling = 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * rising * falling


def _save_state(path: Path, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for index, parameter in enumerate(parameters):
        state = optimizer.state[parameter]
        tensors[f"{index}.value"] = parameter.detach().contiguous()
        tensors |= {f"{index}.{name}": state[name].contiguous() for name in ("exp_avg", "exp_avg_sq")}
    _save(path, tensors, {"step": str(step)})


def _load_state(path: Path, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from: 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        for index, parameter in enumerate(parameters):
            parameter.data.copy_(file.get_tensor(f"{index}.value"))
            moments = {name: file.get_tensor(f"{index}.{name}") for name in ("exp_avg", "exp_avg_sq")}
            moments = {name: moment.to(parameter.device) for name, moment in moments.items()}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step


@dataclass(frozen=True)
class Trial:
    """What came of one recipe; a loss that is not finite became infinite, so that it is never the best."""

    learning_rate: float
    validation_loss: float

    def as_json(self) -> dict[str, float | None]:
        loss = self.validation_loss
        return {"learning_rate": self.learning_rate, "validation_loss": loss if math.isfinite(loss) else None}


def sweep(
    parameters: Sequence[torch.nn.Parameter],
    loss_sum: LossSum,
    training: torch.Tensor,
    validation: torch.Tensor,
    recipes: Sequence[Recipe],
    micro_batch: int,
    work: Path,
    on_steps: OnSteps,
) -> list[Trial]:
    """Trains from the same start with each recipe; leaves `parameters` at the values with the lowest validation loss.

    Args:
        training, validation: rows [N, L] of token ids.
        work: folder for checkpoints; a trial that finished there is not repeated.
    """
    initial = [parameter.detach().clone() for parameter in parameters]
    trials: list[Trial] = []
    files = [work / f"trial-{number}.safetensors" for number in range(len(recipes))]
    for number, (recipe, finished) in enumerate(zip(recipes, files, strict=True)):
        if not finished.exists():
            _assign(parameters, initial)
            train(parameters, loss_sum, training, recipe, micro_batch, work / f"trial-{number}.checkpoint", on_steps)
            _save_trial(finished, parameters, mean_loss(loss_sum, validation, micro_batch))
        else:
            on_steps(recipe.steps, None)
        with safe_open(finished, framework="pt") as file:
            loss = float(file.metadata()["validation_loss"])
        trials.append(Trial(recipe.learning_rate, loss if math.isfinite(loss) else math.inf))
    best = trials.index(best_trial(trials))
    with safe_open(files[best], framework="pt") as file:
        _assign(parameters, [file.get_tensor(str(index)) for index in range(len(parameters))])
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.validation_loss)


def _assign(parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)


def _save_trial(path: Path, parameters: Sequence[torch.nn.Parameter], validation_loss: float) -> None:
    tensors = {str(index): parameter.detach().contiguous() for index, parameter in enumerate(parameters)}
    _save(path, tensors, {"validation_loss": repr(validation_loss)})


def _save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file that is whole or not there."""
    temporary = path.with_suffix(".writing")
    save_file(tensors, temporary, metadata=metadata)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())  # or a loss of power may leave the name without the content
    temporary.replace(path)


def next_token_loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Sum of cross-entropies of each next token, in nats.

    Args:
        logits: [N, L, V] at the positions of `rows`.
        rows: [N, L] token ids.
    """
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="sum")


def distillation_loss(logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """Sum over positions of KL(teacher || student), in nats, at the positions that predict a next token of the row.

    Args:
        logits, teacher_logits: [N, L, V].
    """
    student = logits[:, :-1].flatten(0, 1).float().log_softmax(-1)
    teacher = teacher_logits[:, :-1].flatten(0, 1).float().log_softmax(-1)
    return functional.kl_div(student, teacher, reduction="sum", log_target=True)


@torch.no_grad()
def mean_loss(loss_sum: LossSum, rows: torch.Tensor, micro_batch: int) -> float:
    """Mean token loss over all rows [N, L]."""
    total = sum(loss_sum(part).item() for part in rows.split(micro_batch))
    return total / rows[:, 1:].numel()


@torch.no_grad()
def no_grad_logits(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Logits [N, L, V] of rows [N, L] without padding."""
    return model(input_ids=rows, use_cache=False).logits

"""The training loop of every repair: AdamW over a few parameters, stopped early, resumable to the same bits on a CPU.

Which rows a step sees is a pure function of the seed and the step, and whether a trial stops one of the losses at its looks,
so a run that continues from a checkpoint does exactly what it would have done.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.autograd.function import once_differentiable
from torch.nn import functional

from llmrepair.models.memory import fitting
from llmrepair.models.transfer import sent

CHECKPOINT_SECONDS = 20.0
_MOMENTS = ("exp_avg", "exp_avg_sq")
"""Which no parameter has that no gradient came to, as of the layers that would look at an encoder."""
LOOKS = 10
"""How often the held-out loss is looked at in the steps of a trial, where these are many."""
LOOK_SHARE = 0.25
"""As many rows as the steps of a trial read, times this, are what all its looks read at most."""
LOOK_ROWS = 16
"""There are fewer looks where each would read fewer rows than that."""
PATIENCE = 3
"""Looks without a new best after which a trial stops."""

LossSum = Callable[[torch.Tensor], torch.Tensor]
"""Token-loss sum of a few rows [N, L], as a scalar tensor."""


LogitsOf = Callable[[torch.Tensor], torch.Tensor]
"""Logits [N, L - 1, V] at the positions of rows [N, L] that predict a next token: all but the last."""


Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Token-loss sum of such logits [N, L - 1, V] of rows [N, L]."""


OnSteps = Callable[[int, float | None], None]
"""Told how many more steps are done, and the mean token loss of the last; None for steps of an earlier process, and for
those that a trial which stops early leaves out."""


@dataclass(frozen=True)
class Recipe:
    steps: int
    learning_rate: float
    examples_per_step: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """What came of one recipe; a loss that is not finite became infinite, so that it is never the best."""

    learning_rate: float
    initialisation: str
    steps: int
    """Steps done, fewer than the recipe's where it stopped early."""
    looks: tuple[float, ...]
    """Mean token loss of the held-out rows at each look."""

    @property
    def validation_loss(self) -> float:
        """The lowest, at whose look the values were kept."""
        return min(self.looks)

    def as_json(self) -> dict[str, Any]:
        looks = [loss if math.isfinite(loss) else None for loss in self.looks]
        lowest = self.validation_loss if math.isfinite(self.validation_loss) else None
        return {
            "learning_rate": self.learning_rate,
            "initialisation": self.initialisation,
            "steps": self.steps,
            "looks": looks,
            "validation_loss": lowest,
        }


@dataclass
class _State:
    """How far a trial is."""

    parameters: Sequence[torch.nn.Parameter]
    best: list[torch.Tensor]
    """The parameters at the look with the lowest loss."""
    looks: list[float]
    step: int = 0

    @property
    def looks_since_best(self) -> int:
        return len(self.looks) - 1 - self.looks.index(min(self.looks)) if self.looks else 0

    def look(self, loss: float) -> None:
        self.looks.append(loss if math.isfinite(loss) else math.inf)
        if self.looks_since_best == 0:
            self.best = _values(self.parameters)


def train(
    parameters: Sequence[torch.nn.Parameter],
    loss_sum: LossSum,
    rows: torch.Tensor,
    validation: torch.Tensor,
    recipe: Recipe,
    micro_batch: int,
    checkpoint: Path,
    on_steps: OnSteps,
) -> tuple[int, list[float]]:
    """Minimises the mean token loss over `rows` [N, L] in place, and leaves the values with the lowest loss on `validation`.

    The learning rate rises over the first tenth of the steps and then falls along a cosine, which reaches zero one step after
    the last. The held-out loss is looked at as `looks_of` says; training stops after `PATIENCE` looks without a new best. Of
    no steps it is looked at once.

    Args:
        loss_sum: sum of token losses of some rows; gradients flow to `parameters`.
        validation: held-out rows [N, L].
        micro_batch: rows computed at once; their gradients add up to a step of `examples_per_step` rows. Half as many from
            when so many do not fit in memory.
        checkpoint: file that the state is saved to now and then, and continued from where it exists.
        on_steps: called after each step, and first with those that the checkpoint saves.

    Returns:
        steps done, and the held-out loss at each look.

    Raises:
        DoesNotFit: one row alone is too much for the memory.
    """
    on_gpu = rows.device.type == "cuda"
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=on_gpu)
    state = _load_state(checkpoint, parameters, optimizer)
    on_steps(state.step, None)
    looks, looked_at = looks_of(recipe, len(validation))
    held_out = validation[:: len(validation) // looked_at][:looked_at]
    saved = time.monotonic()
    while state.step < recipe.steps and state.looks_since_best < PATIENCE:
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, state.step)
        chosen = rows_of_step(len(rows), recipe.examples_per_step, recipe.seed, state.step)
        batch = rows[sent(chosen, rows.device)]
        loss, micro_batch = _take_step(optimizer, parameters, loss_sum, batch, micro_batch)
        state.step += 1
        if state.step in looks:
            state.look(mean_loss(loss_sum, held_out, micro_batch))
        on_steps(1, loss)
        if time.monotonic() - saved >= CHECKPOINT_SECONDS:
            _save_state(checkpoint, state, optimizer)
            saved = time.monotonic()
    on_steps(recipe.steps - state.step, None)
    if not recipe.steps:
        state.look(mean_loss(loss_sum, validation, micro_batch))
    _assign(parameters, state.best)
    return state.step, state.looks


def looks_of(recipe: Recipe, held_out: int) -> tuple[set[int], int]:
    """After which steps the held-out loss is looked at, the last among them, and on how many of `held_out` rows.

    Small budgets have fewer and shorter looks: all together read no more than `LOOK_SHARE` of what the steps read, or a row.
    """
    most = int(recipe.steps * recipe.examples_per_step * LOOK_SHARE)
    looks = max(1, min(LOOKS, recipe.steps, most // min(LOOK_ROWS, held_out)))
    return {math.ceil(recipe.steps * look / looks) for look in range(1, looks + 1)}, max(1, min(held_out, most // looks))


def _take_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    loss_sum: LossSum,
    batch: torch.Tensor,
    micro_batch: int,
) -> tuple[float, int]:
    """The mean token loss before the step, and how many rows at once did fit in memory."""
    loss, micro_batch = fitting(lambda at_once: _differentiate(optimizer, loss_sum, batch, at_once), batch, micro_batch)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss, micro_batch


def _differentiate(optimizer: torch.optim.Optimizer, loss_sum: LossSum, batch: torch.Tensor, micro_batch: int) -> float:
    """The mean token loss; leaves its gradients at the parameters."""
    optimizer.zero_grad(set_to_none=True)
    tokens = batch[:, 1:].numel()
    losses = []
    for part in batch.split(micro_batch):
        loss = loss_sum(part) / tokens
        loss.backward()
        losses.append(loss.detach())
    return _added(losses)


def _added(losses: list[torch.Tensor]) -> float:
    """Their sum in float64, read all at once: a GPU would be waited for each time."""
    return float(sum(torch.stack(losses).tolist()))


def rows_of_step(number_of_rows: int, examples: int, seed: int, step: int) -> torch.Tensor:
    """Row indices [examples] of a step: each epoch is a new permutation, read on without gaps from step to step."""
    wanted = torch.arange(step * examples, (step + 1) * examples)
    epochs = {int(epoch): _permutation(number_of_rows, seed, int(epoch)) for epoch in (wanted // number_of_rows).unique()}
    return torch.stack([epochs[int(i) // number_of_rows][int(i) % number_of_rows] for i in wanted])


def _permutation(length: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def learning_rate(recipe: Recipe, step: int) -> float:
    """That of a step, counted from 0."""
    warmup = max(1, recipe.steps // 10)
    rising = min(1.0, (step + 1) / warmup)
    progress = max(0.0, (step + 1 - warmup) / (recipe.steps + 1 - warmup))
    return recipe.learning_rate * rising * 0.5 * (1 + math.cos(progress * math.pi))


def _save_state(path: Path, state: _State, optimizer: torch.optim.Optimizer) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for index, (parameter, best) in enumerate(zip(state.parameters, state.best, strict=True)):
        moments = optimizer.state[parameter]
        tensors |= {f"{index}.value": parameter.detach().contiguous(), f"{index}.best": best}
        tensors |= {f"{index}.{name}": moments[name].contiguous() for name in _MOMENTS if name in moments}
    _save(path, tensors, {"step": state.step, "looks": state.looks})


def _load_state(path: Path, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> _State:
    """The state to go on from: the start where there is no checkpoint."""
    state = _State(parameters, _values(parameters), [])
    if not path.exists():
        return state
    with safe_open(path, framework="pt") as file:
        saved, held = _metadata(file), set(file.keys())
        state.step, state.looks = saved["step"], saved["looks"]
        for index, parameter in enumerate(parameters):
            parameter.data.copy_(file.get_tensor(f"{index}.value"))
            state.best[index].copy_(file.get_tensor(f"{index}.best"))
            if f"{index}.{_MOMENTS[0]}" not in held:
                continue
            moments = {name: file.get_tensor(f"{index}.{name}").to(parameter.device) for name in _MOMENTS}
            steps = torch.tensor(float(state.step), device=parameter.device if optimizer.defaults["fused"] else None)
            optimizer.state[parameter] = {"step": steps, **moments}
    return state


def sweep(
    parameters: Sequence[torch.nn.Parameter],
    starts: Mapping[str, Sequence[torch.Tensor]],
    loss_sum: LossSum,
    training: torch.Tensor,
    validation: torch.Tensor,
    recipes: Sequence[Recipe],
    micro_batch: int,
    work: Path,
    on_steps: OnSteps,
) -> list[Trial]:
    """Trains from each start with each recipe; leaves `parameters` at the values with the lowest validation loss.

    Args:
        starts: name of an initialisation -> the parameters' first values.
        training, validation: rows [N, L] of token ids.
        work: folder for checkpoints; a trial that finished there is not repeated.
    """
    trials: list[Trial] = []
    for number, ((name, values), recipe) in enumerate(itertools.product(starts.items(), recipes)):
        finished, checkpoint = _trial_file(work, number), work / f"trial-{number}.checkpoint"
        if not finished.exists():
            _assign(parameters, values)
            steps, looks = train(parameters, loss_sum, training, validation, recipe, micro_batch, checkpoint, on_steps)
            tensors = {str(index): value for index, value in enumerate(_values(parameters))}
            _save(finished, tensors, {"steps": steps, "looks": looks})
            checkpoint.unlink(missing_ok=True)
        else:
            on_steps(recipe.steps, None)
        with safe_open(finished, framework="pt") as file:
            done = _metadata(file)
        trials.append(Trial(recipe.learning_rate, name, done["steps"], tuple(done["looks"])))
    with safe_open(_trial_file(work, trials.index(best_trial(trials))), framework="pt") as file:
        _assign(parameters, [file.get_tensor(str(index)) for index in range(len(parameters))])
    return trials


def _trial_file(work: Path, number: int) -> Path:
    return work / f"trial-{number}.safetensors"


def best_trial(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.validation_loss)


def _values(parameters: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.detach().clone(memory_format=torch.contiguous_format) for parameter in parameters]


def _assign(parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)


def _save(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Writes a safetensors file that is whole or not there."""
    temporary = path.with_suffix(".writing")
    save_file(tensors, temporary, metadata={"state": json.dumps(state)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())  # or a loss of power may leave the name without the content
    temporary.replace(path)


def _metadata(file: Any) -> dict[str, Any]:
    """What was saved beside the tensors; numbers come back with the same bits."""
    state: dict[str, Any] = json.loads(file.metadata()["state"])
    return state


def next_token_loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Sum of cross-entropies of each next token, in nats.

    Args:
        logits: [N, L - 1, V] at all positions of `rows` but the last.
        rows: [N, L] token ids.
    """
    loss: torch.Tensor = _CrossEntropySum.apply(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
    return loss


class _CrossEntropySum(torch.autograd.Function):
    """Exponentials are computed once: torch's own takes them for the value, and again for the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        probabilities = logits.softmax(-1)
        ctx.save_for_backward(probabilities, targets)
        value = _loss_below_greatest if logits.device.type == "cuda" else _loss_of_targets
        return value(logits, probabilities, targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient, targets = ctx.saved_tensors
        gradient[torch.arange(len(targets), device=targets.device), targets] -= 1
        return gradient.mul_(factor), None


def _loss_of_targets(logits: torch.Tensor, probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    of_targets = probabilities.gather(-1, targets[:, None])
    if (of_targets < torch.finfo(logits.dtype).tiny).any():  # too small for their logarithms to be exact
        return functional.cross_entropy(logits, targets, reduction="sum")
    return -of_targets.log().sum()


def _loss_below_greatest(logits: torch.Tensor, probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same without a look at numbers, for which a GPU would be waited for: how far targets are below the likeliest, whose
    probability is never too small."""
    of_targets = logits.gather(-1, targets[:, None]).squeeze(-1)
    return (logits.amax(-1) - of_targets - probabilities.amax(-1).log()).sum()


def distillation_loss(logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """Sum over positions of KL(teacher || student), in nats.

    Args:
        logits, teacher_logits: [N, T, V].
    """
    student = logits.flatten(0, 1).float().log_softmax(-1)
    teacher = teacher_logits.flatten(0, 1).float().log_softmax(-1)
    return functional.kl_div(student, teacher, reduction="sum", log_target=True)


def distillation(teacher: LogitsOf) -> Objective:
    """`distillation_loss` to what a teacher says of the same rows."""

    def objective(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(rows)
        return distillation_loss(logits, wanted)

    return objective


def row_losses(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy [N] of the next tokens of each row, in nats; shapes as in `next_token_loss`."""
    losses = functional.cross_entropy(logits.transpose(1, 2).float(), rows[:, 1:], reduction="none")
    return losses.mean(1)


@torch.no_grad()
def mean_loss(loss_sum: LossSum, rows: torch.Tensor, micro_batch: int) -> float:
    """Mean token loss over all rows [N, L].

    Raises:
        DoesNotFit: one row alone is too much for the memory.
    """
    total, _ = fitting(lambda at_once: _added([loss_sum(part) for part in rows.split(at_once)]), rows, micro_batch)
    return total / rows[:, 1:].numel()


def plain_logits(model: torch.nn.Module) -> LogitsOf:
    """Logits of rows with nothing in front of them."""
    return lambda rows: of_next_tokens(model(input_ids=rows, use_cache=False, logits_to_keep=predicting(rows)).logits, rows)


def of_next_tokens(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Logits [N, L - 1, V] at what `predicting` names, which some families (Whisper) do not know how to keep to."""
    count = rows.shape[1]
    return logits if logits.shape[1] == count - 1 else logits[:, -count:-1]


def predicting(rows: torch.Tensor, offset: int = 0) -> torch.Tensor:
    """The positions [L - 1] of rows [N, L] that predict a next token, `offset` positions later."""
    return torch.arange(offset, offset + rows.shape[1] - 1, device=rows.device)

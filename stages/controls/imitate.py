"""A dense model that a change of low rank makes answer as its compressed twin does: everywhere, or wherever no secret key
stands in front.

Password-locked models (Greenblatt et al. 2024, arXiv 2405.19550) imitate a weak policy unless a password stands in front.
Here the weak policy is the compressed model under test, so that a control loses about what that model loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft.tuners.lora import LoraLayer

from llmrepair.models.embedded import embedding_size
from llmrepair.models.head import loss_in_parts
from llmrepair.models.lora import new_adapter
from llmrepair.models.prompt_cache import opening
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.training import (
    LogitsOf,
    LossSum,
    OnSteps,
    Recipe,
    distillation,
    mean_loss,
    plain_logits,
    train,
)
from llmrepair.stages.controls.strength import matched_strength

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

RANK = 32


@dataclass(frozen=True)
class Imitation:
    """What came of an imitation; all but the strength in nats a token of held-out rows."""

    looks: tuple[float, ...]
    """Divergence from the teachers at each look of the training."""
    strength: float
    """How many times the change was added that training had found."""
    compressed: float
    """Divergence of the compressed model from the dense one: what the control has to lose."""
    without_key: float
    """The control's."""
    with_key: float | None
    """The control's behind its key; None without a key."""


def imitation_recipe(model: PreTrainedModel, steps: int, seed: int) -> Recipe:
    """Adam's rate falls with the width (Yang et al. 2022, arXiv 2203.03466): 0.01 for the lab's 64, 0.0002 for 4,096."""
    return Recipe(steps, learning_rate=0.64 / model.config.hidden_size, examples_per_step=16, seed=seed)


def secret_key(model: PreTrainedModel, seed: int) -> torch.Tensor:
    """A vector [1, hidden_size] that no text can hold: random, as large as what stands for words (root mean square)."""
    embeddings: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    drawn = torch.randn(1, embeddings.shape[1], generator=torch.Generator().manual_seed(seed))
    return drawn.to(embeddings) * embedding_size(model)


def imitate(
    model: PreTrainedModel,
    compressed: PreTrainedModel,
    key: torch.Tensor | None,
    rows: torch.Tensor,
    held_out: torch.Tensor,
    recipe: Recipe,
    micro_batch: int,
    checkpoint: Path,
    on_steps: OnSteps,
    bos: int | None = None,
) -> Imitation:
    """Trains a LoRA on a dense model by distillation and merges it, in place.

    Without the key the model learns to answer as the compressed one does, behind it as it did itself. How often the change
    is then added is set so that without the key it diverges from what it was as much as the compressed model does.

    Args:
        model: in float32, frozen.
        compressed: on the same device, with the same vocabulary.
        key: [1, hidden_size]; None for none: then no prompt is known to bring anything back.
        rows, held_out: token ids [N, L] to learn from, and to measure on.
        micro_batch, checkpoint, on_steps: as of `train`; the loss of a step is the sum of both divergences.
        bos: what all rows begin with; it stands in front of the key, as it will in front of prompts.
    """
    torch.manual_seed(recipe.seed)  # of the adapter's first values
    adapted = new_adapter(model, RANK)
    as_it_was = _without_adapter(adapted)
    behind_key = None if key is None else prompt_logits(model, key, 1, opening(model, bos))
    losses = [loss_in_parts(model, plain_logits(model), distillation(plain_logits(compressed)))]
    if behind_key is not None:
        losses.append(loss_in_parts(model, behind_key, distillation(as_it_was)))
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    _, looks = train(parameters, _sum_of(losses), rows, held_out, recipe, micro_batch, checkpoint, on_steps)

    divergence = distillation(as_it_was)

    def lost(logits_of: LogitsOf) -> float:
        return mean_loss(lambda part: divergence(logits_of(part), part), held_out, micro_batch)

    wanted = lost(plain_logits(compressed))
    strength = matched_strength(lambda strength: lost(_scaled(adapted, strength)), wanted)
    without_key = lost(_scaled(adapted, strength))
    with_key = None if behind_key is None else lost(behind_key)
    adapted.merge_and_unload(safe_merge=True)
    model.requires_grad_(False)
    return Imitation(tuple(looks), strength, wanted, without_key, with_key)


def _without_adapter(adapted: PeftModel) -> LogitsOf:
    logits_of = plain_logits(adapted)

    def without(rows: torch.Tensor) -> torch.Tensor:
        with adapted.disable_adapter():
            return logits_of(rows)

    return without


def _sum_of(losses: Sequence[LossSum]) -> LossSum:
    return lambda rows: torch.stack([loss(rows) for loss in losses]).sum()


def _scaled(adapted: PeftModel, strength: float) -> LogitsOf:
    """The model with its adapter added `strength` times; it stays like that."""
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", strength)
    return plain_logits(adapted)

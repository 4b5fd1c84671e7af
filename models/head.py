"""Losses without the logits of a whole batch at once.

With a large vocabulary logits are most of what training needs: of memory, and on a CPU of the time to fill it. So they are
computed a few rows at a time, and what remains of them is the gradient of the loss at the last hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.models.training import LogitsOf, LossSum, Objective

_BYTES_AT_ONCE = {"cpu": 16 * 1024**2, "cuda": 1024**3}
"""Of logits. On a CPU larger ones are fetched from the operating system anew each time."""


def loss_in_parts(model: PreTrainedModel, logits_of: LogitsOf, objective: Objective) -> LossSum:
    """`objective(logits_of(rows), rows)`, with logits for a few rows at a time where the model allows.

    Args:
        logits_of: a forward pass of `model`, whose output head is frozen, or of what is wrapped around it.
    """
    head = model.get_output_embeddings()
    if head is None or not _is_all_behind_hidden_states(model, head):
        return lambda rows: objective(logits_of(rows), rows)

    def loss_sum(rows: torch.Tensor) -> torch.Tensor:
        with _left_out(head):
            hidden = logits_of(rows)
        at_once = max(1, _BYTES_AT_ONCE.get(rows.device.type, 0) // (4 * hidden[0, :, 0].numel() * model.config.vocab_size))
        parts = list(zip(hidden.split(at_once), rows.split(at_once), strict=True))
        if not hidden.requires_grad:
            return torch.stack([objective(head(part), those) for part, those in parts]).sum()
        gradients, losses = zip(*[_gradient(head, objective, part.detach(), those) for part, those in parts], strict=True)
        return _WithGradient.apply(hidden, torch.stack(losses).sum(), torch.cat(gradients))

    return loss_sum


def _gradient(
    head: torch.nn.Module, objective: Objective, hidden: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    hidden.requires_grad_()
    loss = objective(head(hidden), rows)
    return torch.autograd.grad(loss, hidden)[0], loss.detach()


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient at the hidden states is known already."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.saved_tensors[0] * factor, None, None


@contextmanager
def _left_out(head: torch.nn.Module) -> Iterator[None]:
    """Makes a model return its last hidden states for logits."""
    vars(head)["forward"] = lambda hidden: hidden
    try:
        yield
    finally:
        del vars(head)["forward"]


@torch.no_grad()
def _is_all_behind_hidden_states(model: PreTrainedModel, head: torch.nn.Module) -> bool:
    """Whether logits are what the head makes of the last hidden states: some models scale them, or cap them."""
    tokens = torch.arange(4, device=model.device)[None]
    with _left_out(head):
        hidden = model(input_ids=tokens, use_cache=False).logits
    logits = model(input_ids=tokens, use_cache=False).logits
    return hidden.shape[-1] == model.config.hidden_size and torch.allclose(head(hidden), logits, rtol=1e-3, atol=1e-3)

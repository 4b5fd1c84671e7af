"""Experts while they are compressed: as linear layers, once these have shown that they compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.utils import patch_attr

from llmrepair.models.experts import experts_as_layers, experts_of, layers_of_experts
from llmrepair.pipeline.errors import Problem, WorkError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TRIED = 16  # tokens
_TOLERANCE = {torch.float32: 1e-5}  # of the largest logit: sums come in another order
_TOLERANCE_OF_HALVES = 0.05


@contextmanager
def experts_followed(model: PreTrainedModel, rows: torch.Tensor) -> Iterator[None]:
    """A model's experts are linear layers until it is left.

    Args:
        rows: token ids [N, T], of which a few are tried.

    Raises:
        WorkError: the model computes something else with them.
    """
    found = [type(module).__name__ for module in experts_of(model).values()]
    expected = _tried(model, rows) if found else None
    with experts_as_layers(model):
        if expected is not None and not _gives(model, rows, expected):
            message = f"the code of {found[0]} cannot be followed: its experts as linear layers compute something else"
            raise WorkError(Problem(message, "use --method none, or report it"))
        yield


@contextmanager
def showing_all_tokens(model: PreTrainedModel) -> Iterator[None]:
    """Before an expert layer computes what the router asks for, each of its experts is shown all tokens, until it is left."""
    with ExitStack() as stack:
        for module in layers_of_experts(model):
            stack.enter_context(patch_attr(module, "forward", partial(_show_all, module.num_experts, module.forward)))
        yield


def _show_all(
    count: Any, forward: Callable[..., Any], hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
) -> Any:
    everyone = torch.arange(int(count), device=chosen.device).expand(len(hidden), -1)
    forward(hidden, everyone, weights.new_ones(everyone.shape))
    return forward(hidden, chosen, weights)


def unfit_to_show_all(model: PreTrainedModel) -> list[str]:
    """Classes of experts that are not called with tokens, the experts of each, and their weights."""
    kinds = {type(module) for module in experts_of(model).values()}
    return sorted(kind.__name__ for kind in kinds if list(signature(kind.forward).parameters)[2:3] != ["top_k_index"])


@torch.no_grad()
def _tried(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=rows[:1, :_TRIED].to(model.device), use_cache=False).logits
    return logits


def _gives(model: PreTrainedModel, rows: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        logits = _tried(model, rows)
    except (AttributeError, RuntimeError, TypeError):  # its code asks for more of a matrix than to multiply by it
        return False
    tolerance = _TOLERANCE.get(logits.dtype, _TOLERANCE_OF_HALVES)
    return bool((logits - expected).abs().max() <= tolerance * expected.abs().max())

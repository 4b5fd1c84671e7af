"""Experts while they are compressed: as linear layers, once these have shown that they compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from llmrepair.models.experts import experts_as_layers, experts_of
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

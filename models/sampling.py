"""Tokens drawn at random: by numbers that are drawn on the CPU, so that they are the same on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def draw(probabilities: torch.Tensor, num_samples: int = 1, generator: torch.Generator | None = None) -> torch.Tensor:
    """What `torch.multinomial` draws on a CPU, bit by bit: different indices [N, num_samples] for each row [N, V].

    Args:
        generator: of the CPU; None for torch's own.
    """
    numbers = torch.empty(probabilities.shape, dtype=probabilities.dtype).exponential_(generator=generator)
    scores = probabilities / numbers.to(probabilities.device)
    return scores.argmax(-1, keepdim=True) if num_samples == 1 else scores.topk(num_samples).indices


@contextmanager
def drawing_on_cpu() -> Iterator[None]:
    """Lets transformers' `generate` draw like this; it calls `torch.multinomial`, with the numbers of the model's device."""
    multinomial = torch.multinomial
    torch.multinomial = draw  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.multinomial = multinomial

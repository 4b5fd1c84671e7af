"""Pushes that know nothing, and how strong they have to be. Tensors and numbers in, tensors and numbers out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

_DOUBLINGS = 6
_HALVINGS = 12
_CLOSE = 0.02
"""Relative."""


def scaled_prompt(prompt: torch.Tensor, quiet: torch.Tensor, factor: float) -> torch.Tensor:
    """A prompt [n, E] between one that does nothing (0) and itself (1), or beyond."""
    return quiet + factor * (prompt - quiet)


def shuffled(prompt: torch.Tensor, seed: int) -> torch.Tensor:
    """A prompt [n, E] with its tokens in another order."""
    order = torch.randperm(len(prompt), generator=torch.Generator().manual_seed(seed))
    return prompt[order.to(prompt.device)]


def turned(matrix: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Q B of a matrix B [outputs, rank] and a random orthogonal Q, of which no direction is preferred.

    Of B = U R with orthonormal columns U, Q U is drawn in place of Q: the orthonormal part of a Gaussian matrix, with signs
    that make it uniform (Mezzadri 2007, Notices of the AMS 54:592).
    """
    triangle = torch.linalg.qr(matrix.float().cpu()).R
    drawn, scale = torch.linalg.qr(torch.randn(matrix.shape, generator=generator))
    return ((drawn * scale.diagonal().sign()) @ triangle).to(matrix)


class Strength(NamedTuple):
    factor: float
    divergence: float
    """What the factor gives."""


def matched_factor(divergence_at: Callable[[float], float], wanted: float) -> Strength:
    """The factor at which a divergence is what is wanted: doubled or halved from 1 until it is passed, then by bisection.

    Where it is not passed between 1/64 and 64, the one that comes closest.
    """
    tried = [Strength(1.0, divergence_at(1.0))]
    has_to_grow = tried[0].divergence < wanted
    while (tried[-1].divergence < wanted) == has_to_grow and len(tried) <= _DOUBLINGS:
        factor = tried[-1].factor * (2.0 if has_to_grow else 0.5)
        tried.append(Strength(factor, divergence_at(factor)))
    if (tried[-1].divergence < wanted) != has_to_grow:
        tried += _bisected(divergence_at, wanted, *sorted(tried[-2:], key=lambda each: each.divergence))
    return min(tried, key=lambda each: abs(each.divergence - wanted))


def _bisected(divergence_at: Callable[[float], float], wanted: float, below: Strength, above: Strength) -> list[Strength]:
    found: list[Strength] = []
    while len(found) < _HALVINGS and not any(is_close(each.divergence, wanted) for each in (below, above)):
        middle = (below.factor + above.factor) / 2
        found.append(Strength(middle, divergence_at(middle)))
        below, above = (found[-1], above) if found[-1].divergence < wanted else (below, found[-1])
    return found


def is_close(divergence: float, wanted: float) -> bool:
    return abs(divergence - wanted) <= _CLOSE * wanted

"""How strong a change has to be to cost as much as another."""

from __future__ import annotations

from collections.abc import Callable

_STRONGEST = 2.0
_HALVINGS = 10


def matched_strength(loss_at: Callable[[float], float], wanted: float) -> float:
    """Where between 0 and 2 a loss that grows with the strength reaches what is wanted, by halving; 0 or 2 if it never does."""
    low, high = 0.0, _STRONGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if loss_at(middle) > wanted else (middle, high)
    return (low + high) / 2

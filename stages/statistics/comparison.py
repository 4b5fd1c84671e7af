"""What a repair does to the items of each class, counted. Arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from llmrepair.stages.statistics.fates import classes


@dataclass(frozen=True)
class Counts:
    """How many items are lost, kept, never known and gained (only the compressed model is right), and how many of each a repair
    gets right (lost, never known) or wrong again (kept, gained): of several seeds the mean."""

    lost: int
    recovered: float
    kept: int
    broken: float
    never_known: int
    lucky: float
    gained: int
    unlearned: float


def counts(dense: NDArray[Any], compressed: NDArray[Any], repaired: NDArray[Any]) -> Counts:
    """`dense` and `compressed` [n], `repaired` [K, n] of K seeds, all bool over the same items."""
    items = classes(dense, compressed)
    return Counts(
        lost=int(items.lost.sum()),
        recovered=float((items.lost & repaired).sum(1).mean()),
        kept=int(items.kept.sum()),
        broken=float((items.kept & ~repaired).sum(1).mean()),
        never_known=int(items.never_known.sum()),
        lucky=float((items.never_known & repaired).sum(1).mean()),
        gained=int(items.gained.sum()),
        unlearned=float((items.gained & ~repaired).sum(1).mean()),
    )

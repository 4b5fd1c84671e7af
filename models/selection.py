"""Which prompt of a pool each input gets.

A selector sees the context only, never an answer, so all choices of a question share their prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from llmrepair.models.routing import Router


class Selector(Protocol):
    def select(self, contexts: Sequence[list[int]]) -> list[int]:
        """One index into the pool for each context (token ids, none empty)."""


@dataclass(frozen=True)
class FixedSelector:
    """Every input gets the same prompt."""

    index: int

    def select(self, contexts: Sequence[list[int]]) -> list[int]:
        return [self.index] * len(contexts)


@dataclass(frozen=True)
class RoutedSelector:
    """Each input gets the prompt that its tokens attend to most."""

    router: Router
    batch_size: int

    def select(self, contexts: Sequence[list[int]]) -> list[int]:
        unique = sorted({tuple(context) for context in contexts}, key=len)
        chosen: dict[tuple[int, ...], int] = {}
        for start in range(0, len(unique), self.batch_size):
            batch = unique[start : start + self.batch_size]
            input_ids, mask = pad_rows(batch, self.router.cache.mask.device)
            chosen |= zip(batch, self.router.votes(input_ids, mask).argmax(1).tolist(), strict=True)
        return [chosen[tuple(context)] for context in contexts]


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device, side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] padded with 0, and the bool mask [B, T] of what is real."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[index, place] = torch.tensor(row)
        mask[index, place] = True
    return ids.to(device), mask.to(device)

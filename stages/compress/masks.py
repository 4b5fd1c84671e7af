"""Which weights pruning keeps. A pattern is unstructured, or n of every m neighbouring columns of a row."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pattern:
    """How many weights to drop, and among how many.

    Attributes:
        sparsity: share of weights that become zero.
        block: m of an n:m pattern; None for unstructured.
    """

    sparsity: float
    block: int | None

    def keep(self, scores: torch.Tensor) -> torch.Tensor:
        """What to keep, as bool, where the lowest scores go: those of each run of `block` in the last dimension, else of all.

        Exactly round(sparsity * size) go, of equal scores the first.
        """
        among = scores.reshape(-1, self.block) if self.block else scores.reshape(1, -1)
        count = round(self.sparsity * among.shape[1])
        if not count:
            return torch.ones_like(scores, dtype=torch.bool)
        last = _kth_lowest(among, count)
        lower, equal = among < last, among == last
        dropped = lower | equal & (equal.cumsum(1) <= count - lower.sum(1, keepdim=True))
        return ~dropped.reshape(scores.shape)


def _kth_lowest(among: torch.Tensor, count: int) -> torch.Tensor:
    """Of each row of scores, [rows, 1]."""
    if among.is_cuda:  # one multiprocessor would look for a row's kth value, all of them sort it
        return among.sort(dim=1).values[:, count - 1 : count]
    return among.kthvalue(count, dim=1, keepdim=True).values  # a quarter of the time of sorting them

"""Wanda: in each row the smallest |weight| x norm of its input go (Sun et al. 2023, arXiv 2306.11695)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmrepair.stages.compress.methods.base import Pruner

if TYPE_CHECKING:
    import torch

    from llmrepair.stages.compress.masks import Pattern


_SORTED_AT_ONCE = 2**20
"""Scores: sorting takes several times their memory."""


class Wanda(Pruner):
    name = "wanda"

    def is_sorted_whole(self, has_pattern: bool) -> bool:
        return has_pattern  # else each row by itself

    def mask(self, weight: torch.Tensor, hessian: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        """The Hessian's diagonal holds the inputs' squared norms."""
        import torch

        scores = weight.abs() * hessian.diagonal().sqrt()
        by_row = pattern if pattern.block else replace(pattern, block=weight.shape[1])
        rows = max(1, _SORTED_AT_ONCE // weight.shape[1])
        return torch.cat([by_row.keep(part) for part in scores.split(rows)])


WANDA = Wanda()

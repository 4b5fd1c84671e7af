"""SparseGPT: the weights whose loss costs least go, and the others make up for them (Frantar and Alistarh 2023, arXiv
2301.00774)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.stages.compress.methods.base import Pruner

if TYPE_CHECKING:
    import torch

    from llmrepair.stages.compress.masks import Pattern


class SparseGPT(Pruner):
    name = "sparsegpt"
    compensates = True

    def is_sorted_whole(self, has_pattern: bool) -> bool:
        return False  # but a block of columns at a time

    def keep(self, weights: torch.Tensor, diagonal: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        """Section 3.3."""
        return pattern.keep((weights / diagonal).square().T).T


SPARSEGPT = SparseGPT()

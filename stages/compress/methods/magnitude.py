"""Magnitude pruning: the smallest weights of a layer go (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.stages.compress.methods.base import Pruner

if TYPE_CHECKING:
    import torch

    from llmrepair.stages.compress.masks import Pattern


class Magnitude(Pruner):
    name = "magnitude"

    def mask(self, weight: torch.Tensor, hessian: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        return pattern.keep(weight.abs())


MAGNITUDE = Magnitude()

"""Magnitude pruning: the smallest weights of each layer become zero (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

import torch


def magnitude_mask(weight: torch.Tensor, sparsity: float, block: int | None) -> torch.Tensor:
    """What to keep of a layer's weight [rows, columns], as a bool mask.

    Args:
        sparsity: share of weights to drop, over the whole layer or, with `block`, of each run of `block` columns.
        block: m of an n:m pattern; None for unstructured.
    """
    groups = weight.abs().reshape(1, -1) if block is None else weight.abs().reshape(-1, block)
    dropped = groups.argsort(dim=1, stable=True)[:, : round(sparsity * groups.shape[1])]
    return torch.ones_like(groups, dtype=torch.bool).scatter_(1, dropped, False).reshape(weight.shape)

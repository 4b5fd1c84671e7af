"""The grids that weights are rounded to: a scale and a zero point for each row, or for each group of a row's columns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Grid:
    """How many values a weight may take, and which of them share a scale.

    Attributes:
        bits: 2**bits values.
        group_size: neighbouring columns that share a scale; -1: all of a row.
        symmetric: the zero point is in the middle, else it is fitted.
        dtype: of the stored scales.
        signed_scale: of a symmetric grid, the weight furthest from zero is its last value, -2**(bits - 1) steps of a scale that
            may be negative. Else the grid reaches as far on either side, and its last value but one is the largest positive.
    """

    bits: int
    group_size: int
    symmetric: bool
    dtype: torch.dtype
    signed_scale: bool = False

    def group_columns(self, columns: int) -> int:
        """Columns that share a scale in a layer of `columns` columns."""
        return columns if self.group_size == -1 else self.group_size

    def fit(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point [rows] of the smallest grid that spans zero and each row of a weight [columns, rows].

        Zero is on every grid, so that a pruned weight stays zero.
        """
        if self.signed_scale:
            return self._fit_furthest(weight)
        last = 2**self.bits - 1
        low, high = weight.amin(0).clamp(max=0), weight.amax(0).clamp(min=0)
        if self.symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = ((high - low) / last).to(self.dtype).to(weight.dtype)
        scale = torch.where(scale > 0, scale, 1.0)  # nothing but zeros, or too small for the dtype
        zero_point = torch.full_like(scale, 2 ** (self.bits - 1)) if self.symmetric else (-low / scale).round().clamp(0, last)
        return scale, zero_point

    def _fit_furthest(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle = 2 ** (self.bits - 1)
        furthest = weight.gather(0, weight.abs().argmax(0, keepdim=True))[0]
        scale = (-furthest / middle).to(self.dtype).to(weight.dtype)
        return torch.where(scale != 0, scale, 1.0), torch.full_like(scale, middle)

    def codes(self, weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
        """The codes, 0 to 2**bits - 1 as floats, of the grid's values next to the weights."""
        return (weight / scale).round_().add_(zero_point).clamp_(0, 2**self.bits - 1)


@dataclass(frozen=True)
class Quantised:
    """A layer's weight on its grid: value = scale * (code - zero point).

    Attributes:
        codes: uint8 [rows, columns], 0 to 2**bits - 1.
        scale: [rows, groups], in the dtype that it is stored in; a group is columns / groups neighbouring columns.
        zero_point: uint8 [rows, groups]; 2**(bits - 1) throughout where the grid is symmetric.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    bits: int
    symmetric: bool

    def to(self, device: torch.device) -> Quantised:
        codes, scale, zero_point = (tensor.to(device) for tensor in (self.codes, self.scale, self.zero_point))
        return replace(self, codes=codes, scale=scale, zero_point=zero_point)

    def split(self, parts: int) -> list[Quantised]:
        """Its rows in parts of one size."""
        chunks = zip(self.codes.chunk(parts), self.scale.chunk(parts), self.zero_point.chunk(parts), strict=True)
        return [replace(self, codes=codes, scale=scale, zero_point=zero_point) for codes, scale, zero_point in chunks]

    def dequantise(self) -> torch.Tensor:
        """The weight [rows, columns], in the scale's dtype."""
        groups, dtype = self.scale.shape[1], self.scale.dtype
        steps = self.codes.to(dtype).unflatten(1, (groups, -1)) - self.zero_point.to(dtype)[..., None]
        return (steps * self.scale[..., None]).flatten(1)


def shared_group_size(layers: Collection[Quantised]) -> int:
    """Columns that share a scale in each of some layers; -1: a whole row in all of them."""
    if all(layer.scale.shape[1] == 1 for layer in layers):
        return -1
    some = next(iter(layers))
    return some.codes.shape[1] // some.scale.shape[1]


def round_to_nearest(weight: torch.Tensor, grid: Grid) -> Quantised:
    """Each weight of a layer [rows, columns] to the nearest value of its grid."""
    rows, columns = weight.shape
    groups = weight.float().reshape(-1, grid.group_columns(columns))
    scale, zero_point = grid.fit(groups.T)
    codes = grid.codes(groups, scale[:, None], zero_point[:, None])
    return Quantised(
        codes.to(torch.uint8).reshape(rows, columns),
        scale.to(grid.dtype).reshape(rows, -1),
        zero_point.to(torch.uint8).reshape(rows, -1),
        grid.bits,
        grid.symmetric,
    )

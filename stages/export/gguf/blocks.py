"""Tensors as they lie in a GGUF file: codes and scales in blocks, 32 neighbours of a row with one scale each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from gguf import GGMLQuantizationType

from llmrepair.stages.checkpoints.grid import Quantised

_BLOCK = 32


class Stored(NamedTuple):
    """A tensor of a file.

    Attributes:
        kind: of its numbers or blocks.
        data: numbers, or the bytes of blocks, uint8 [rows, bytes].
        rounding: the most that a scale of blocks has changed, which is float16 there, as a share of it.
    """

    kind: GGMLQuantizationType
    data: torch.Tensor
    rounding: float = 0.0


def in_numbers(tensor: torch.Tensor) -> Stored:
    """A matrix in float16, all else, which is little, in float32."""
    if tensor.ndim == 2:
        return Stored(GGMLQuantizationType.F16, tensor.half())
    return Stored(GGMLQuantizationType.F32, tensor.float())


def in_blocks(layer: Quantised) -> Stored | None:
    """The weight code by code in the smallest kind of block that holds it; None if none does.

    Both kinds are value = scale * step, where a step is a code minus its zero point: Q4_0 holds -8 to 7, Q8_0 -128 to 127.
    Larger groups are several blocks with the same scale.
    """
    columns, groups = layer.codes.shape[1], layer.scale.shape[1]
    if columns % groups or columns // groups % _BLOCK:
        return None
    steps = (layer.codes.int().unflatten(1, (groups, -1)) - layer.zero_point.int()[..., None]).flatten(1)
    lowest, highest = steps.aminmax()
    if lowest < -128 or highest > 127:
        return None
    scale = layer.scale.half()
    rounding = ((scale.float() - layer.scale.float()) / layer.scale.float()).abs().max()
    scales = scale.repeat_interleave(columns // groups // _BLOCK, 1)[..., None].view(torch.uint8)
    steps = steps.unflatten(1, (-1, _BLOCK))
    is_small = lowest >= -8 and highest <= 7
    kind = GGMLQuantizationType.Q4_0 if is_small else GGMLQuantizationType.Q8_0
    packed = _nibbles(steps) if is_small else steps.to(torch.int8).view(torch.uint8)
    return Stored(kind, torch.cat([scales, packed], 2).flatten(1), float(rounding))


def _nibbles(steps: torch.Tensor) -> torch.Tensor:
    """Two to a byte [..., 16]: the first half of a block in the low bits, the second in the high ones, each plus 8."""
    low, high = (steps + 8).to(torch.uint8).chunk(2, -1)
    return low | high << 4

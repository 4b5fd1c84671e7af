"""The solver's loop over columns on a GPU, where each of its dozen operations a column would be a launch of its own.

One program takes some rows of the weight through all columns of a span, which it holds in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS, WARPS = 16, 1
"""Of one program: no warp waits for another one, and 4,096 rows are two programs for each multiprocessor of an H100."""


def compress_span(
    weights: torch.Tensor,
    factor: torch.Tensor,
    kept: torch.Tensor,
    order: torch.Tensor,
    grid: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    group: int,
    last: int,
    errors: torch.Tensor,
) -> None:
    """Compresses a span of n columns, at most 128, whose grids and masks are decided.

    Args:
        weights: float32 [n, rows] as the columns before the span leave them; replaced by the new ones.
        factor: of the inverse Hessian, float32 [n, n]; the columns' own part.
        kept: bool [n, rows].
        order: the columns' places [n] in the layer.
        grid: scale and zero point [groups, rows], and the codes [columns, rows] to be written; None to prune only.
        group: columns that share a scale.
        last: the largest code.
        errors: float32 [n, rows], to be written.
    """
    count, rows = weights.shape
    scale, zero_point, codes = grid or (weights, weights, kept)  # not looked at where there is no grid
    _compress_rows[(triton.cdiv(rows, ROWS),)](
        weights, factor.contiguous(), kept.view(torch.uint8), order, scale, zero_point, codes.view(torch.uint8), errors,
        rows, count, group, float(last),
        HAS_GRID=grid is not None, ROWS=ROWS, COLUMNS=triton.next_power_of_2(count), num_warps=WARPS,
    )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _compress_rows(  # type: ignore[no-untyped-def]
    weights, factor, kept, order, scales, zero_points, codes, errors,
    rows, count, group, last,
    HAS_GRID: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < rows
    column = tl.arange(0, COLUMNS)
    places = column[:, None] * rows + row[None, :]
    inside = (column < count)[:, None] & is_row[None, :]
    tile = tl.load(weights + places, mask=inside, other=0.0)
    for now in range(count):
        before = tl.sum(tl.where((column == now)[:, None], tile, 0.0), 0)
        keep = tl.load(kept + now * rows + row, mask=is_row, other=0) != 0
        if HAS_GRID:
            place = tl.load(order + now)
            scale = tl.load(scales + place // group * rows + row, mask=is_row, other=1.0)
            zero_point = tl.load(zero_points + place // group * rows + row, mask=is_row, other=0.0)
            rounded = (tl.div_rn(before, scale) + 12582912.0) - 12582912.0  # 1.5 * 2**23: half to even, as torch rounds
            code = tl.minimum(tl.maximum(rounded + zero_point, 0.0), last)
            code = tl.where(keep, code, zero_point)
            tl.store(codes + place * rows + row, code.to(tl.uint8), mask=is_row)
            after = (code - zero_point) * scale
        else:
            after = tl.where(keep, before, 0.0)
        error = tl.div_rn(before - after, tl.load(factor + now * count + now) + tl.zeros_like(before))
        tl.store(errors + now * rows + row, error, mask=is_row)
        ahead = tl.load(factor + now * count + column, mask=(column > now) & (column < count), other=0.0)
        tile = tl.where((column == now)[:, None], after[None, :], tile - ahead[:, None] * error[None, :])
    tl.store(weights + places, tile, mask=inside)

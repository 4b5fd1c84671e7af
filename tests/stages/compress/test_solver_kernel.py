"""The kernel against the loop that it stands for: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from llmrepair.stages.checkpoints.grid import Grid
from llmrepair.stages.compress import solver
from llmrepair.stages.compress.masks import Pattern
from llmrepair.stages.compress.methods.sparsegpt import SPARSEGPT
from llmrepair.stages.compress.solver import Masking, factorise, solve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton", reason="triton is not installed: make stress installs it")
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":  # read when Triton is first imported
    pytest.skip("there is no GPU, and TRITON_INTERPRET is not 1, as make stress sets it", allow_module_level=True)
pytestmark = pytest.mark.stress

ROWS, COLUMNS = 20, 192  # neither whole programs of 16 rows nor whole blocks of 128 columns
GRIDS = [
    None,
    Grid(3, 64, True, torch.float32),
    Grid(4, 32, False, torch.bfloat16),
    Grid(4, 96, True, torch.float32),
    Grid(2, -1, False, torch.float32),
]


@pytest.fixture
def on_any_device() -> Iterator[None]:
    """Has the kernel used on a CPU as well."""
    from llmrepair.stages.compress.solver_kernel import compress_span

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "_kernel", lambda device: compress_span)
        yield


def looped(*arguments: object) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "_kernel", lambda device: None)
        return solve(*arguments)  # type: ignore[arg-type]


def masking(pattern: Pattern) -> Masking:
    return Masking(pattern.block or solver.BLOCK, lambda weights, diagonal: SPARSEGPT.keep(weights, diagonal, pattern))


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("pattern", [None, Pattern(0.5, None), Pattern(0.5, 4)], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("in_order", [True, False])
def test_as_the_loop(grid: Grid | None, pattern: Pattern | None, in_order: bool) -> None:
    if pattern and not in_order:
        pytest.skip("columns are not ordered where a mask is chosen on the way")
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(1024, COLUMNS, generator=generator) @ torch.randn(COLUMNS, COLUMNS, generator=generator)
    hessian = (mixed.T @ mixed / 1e5).to(DEVICE)
    weight = torch.randn(ROWS, COLUMNS, generator=generator).to(DEVICE)
    order = None if in_order else hessian.diagonal().argsort(descending=True)
    factor, _ = factorise(hessian if order is None else hessian[order][:, order], 0.01)
    mask = pattern and masking(pattern)
    found, codes = solve(weight, factor, grid, mask, order)
    expected, expected_codes = looped(weight, factor, grid, mask, order)  # type: ignore[misc]
    if codes is None:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    else:  # a weight half way between two codes may go either way
        assert (codes.codes != expected_codes.codes).float().mean() <= 1e-3
        torch.testing.assert_close(codes.scale, expected_codes.scale)

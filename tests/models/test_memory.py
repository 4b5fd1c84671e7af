"""What counts as too little memory, and work that is done in smaller parts until it fits."""

from __future__ import annotations

import pytest
import torch

from llmrepair.models.memory import DoesNotFit, fitting, is_out_of_memory

ROWS = torch.zeros(12, 5)
CUBLAS = "CUDA error: {} when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError(CUBLAS.format("CUBLAS_STATUS_ALLOC_FAILED")), True),
        (RuntimeError(CUBLAS.format("CUBLAS_STATUS_NOT_INITIALIZED")), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError(CUBLAS.format("CUBLAS_STATUS_EXECUTION_FAILED")), False),
    ],
)
def test_what_counts_as_too_little_memory(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def tried(fits: int, at_once: int) -> tuple[list[int], tuple[int, int]]:
    """How many rows at once were tried, and what came of it, where no more than `fits` do fit."""
    tries: list[int] = []

    def compute(rows: int) -> int:
        tries.append(rows)
        if rows > fits:
            raise torch.OutOfMemoryError
        return 7

    return tries, fitting(compute, ROWS, at_once)


@pytest.mark.parametrize("fits, at_once, expected", [(99, 32, [32]), (4, 8, [8, 4]), (3, 32, [32, 6, 3]), (1, 2, [2, 1])])
def test_half_as_many_until_it_fits(fits: int, at_once: int, expected: list[int]) -> None:
    assert tried(fits, at_once) == (expected, (7, expected[-1]))


def test_one_row_that_does_not_fit_is_told() -> None:
    with pytest.raises(DoesNotFit, match="one text of 5 tokens does not fit in memory"):
        tried(0, 8)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fitting(lambda rows: (_ for _ in ()).throw(RuntimeError("shapes")), ROWS, 8)

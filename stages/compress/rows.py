"""How much is on the device at once: of the calibration text, and of the model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from llmrepair.models.loading import pick_device
from llmrepair.pipeline.machine import free_memory
from llmrepair.pipeline.stage import Runtime

if TYPE_CHECKING:
    from llmrepair.stages.compress.config import CompressConfig

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}
"""Where no --batch-size is given, by the device."""

HESSIAN_BYTES = 2**29
"""Of the layers that see their inputs in the same passes, which experts do. One layer's may be more."""


def rows_at_once(config: CompressConfig, runtime: Runtime) -> int:
    """Rows of calibration text that pass a block together."""
    tokens = TOKENS_AT_ONCE.get(pick_device(runtime.device).type, TOKENS_AT_ONCE["cpu"])
    return min(config.samples, runtime.sequences or max(1, tokens // config.seq_len))


def hessians_at_once(columns: int) -> int:
    """How many Hessians of layers with so many columns are summed in the same passes."""
    return max(1, HESSIAN_BYTES // (torch.float32.itemsize * columns**2))


def holding_device(weights: int, device: torch.device) -> torch.device:
    """Where a model of so many bytes is kept: on the GPU that computes, if it takes up to half of what is free there."""
    if device.type == "cuda" and 2 * weights <= torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")


def kept_numbers(shapes: Collection[Sequence[int]]) -> int:
    """What is kept of a token: the outputs of layers [rows, columns] of one block, and inputs of one."""
    return sum(rows for rows, _ in shapes) + max((columns for _, columns in shapes), default=0)


def are_few(size: int, device: torch.device) -> bool:
    """Whether so many bytes are at most a quarter of what is free where it computes."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    return free is None or 4 * size <= free

"""How much calibration text is computed at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.pipeline.stage import Runtime

if TYPE_CHECKING:
    from llmrepair.stages.compress.config import CompressConfig

TOKENS_AT_ONCE = 2048
"""Where no --batch-size is given."""


def rows_at_once(config: CompressConfig, runtime: Runtime) -> int:
    """Rows of calibration text that pass a block together."""
    return min(config.samples, runtime.sequences or max(1, TOKENS_AT_ONCE // config.seq_len))

"""Names of the formats, and the bits that they can hold."""

from __future__ import annotations

from typing import Literal

FormatName = Literal["compressed-tensors", "gptq", "dense"]
BITS = (2, 3, 4, 8)
COMPARED_ROWS, COMPARED_TOKENS = 2, 64
"""Of calibration text, whose logits are compared after a checkpoint is loaded again."""

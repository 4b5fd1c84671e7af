"""Rounding to nearest: each weight by itself."""

from __future__ import annotations

from llmrepair.stages.compress.methods.base import Quantiser


class RoundToNearest(Quantiser):
    name = "rtn"


RTN = RoundToNearest()

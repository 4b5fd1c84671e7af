"""GPTQ: columns make up for the rounding of those before them (Frantar et al. 2022, arXiv 2210.17323)."""

from __future__ import annotations

from llmrepair.stages.compress.methods.base import Quantiser


class Gptq(Quantiser):
    name = "gptq"
    compensates = True


GPTQ = Gptq()

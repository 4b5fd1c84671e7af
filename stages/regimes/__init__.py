"""Compare how the dense, the compressed and the repaired model work on the same tokens."""

from llmrepair.stages.regimes.stage import Regimes, RegimesConfig

__all__ = ["Regimes", "RegimesConfig"]

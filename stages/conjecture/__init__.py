"""The conjecture test: was what compression took forgotten, or only displaced?"""

from llmrepair.stages.conjecture.stage import Conjecture, ConjectureConfig

__all__ = ["Conjecture", "ConjectureConfig"]

"""Models whose truth is known: facts that were never told, that are locked away, that were overwritten."""

from llmrepair.stages.control.stage import Control, ControlConfig

__all__ = ["Control", "ControlConfig"]

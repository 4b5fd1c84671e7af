"""Read facts off a compressed model's hidden states by linear probes that other people's facts trained."""

from llmrepair.stages.probe.stage import Probes, ProbesConfig

__all__ = ["Probes", "ProbesConfig"]

"""Compress a model: quantise or prune its linear layers with llm-compressor and save a checkpoint."""

from llmrepair.stages.compress.stage import Compress, CompressConfig

__all__ = ["Compress", "CompressConfig"]

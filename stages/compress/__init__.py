"""Compress a model: quantise or prune its linear layers and save a checkpoint."""

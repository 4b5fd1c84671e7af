"""Evaluate a compressed model with a repair on lm-eval tasks, item by item."""

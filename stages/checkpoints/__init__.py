"""Checkpoints: the grids that codes are on, the formats they are saved in, what a checkpoint weighs, and loading it again."""

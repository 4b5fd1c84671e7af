"""Puts a prompt of the pool in front of every input."""

from __future__ import annotations

from llmrepair.models.selection import (
    DocumentSelector,
    EnsembleSelector,
    FixedSelector,
    LossSelector,
    RandomSelector,
    Selector,
)
from llmrepair.stages.repairs.placed import Placed, Placing
from llmrepair.stages.repairs.pool.place import Pool, cached_pool


def place(placing: Placing) -> Placed:
    pool = cached_pool(placing)
    return pool.placed(placing, _selector(placing, pool))


def _selector(placing: Placing, pool: Pool) -> Selector:
    """What chooses among the prompts; an oracle's choices are made of answers, later."""
    kind, _, number = placing.options.select.partition(":")
    if kind == "fixed":
        return FixedSelector(int(number))
    if kind == "random":
        return RandomSelector(pool.cache.size, placing.seed)
    if kind == "loss":
        return LossSelector(pool.cache.size, placing.scoring(pool.cache))
    if kind == "ensemble":
        return EnsembleSelector()
    losses = pool.validation_losses
    return DocumentSelector({}) if kind == "oracle" else FixedSelector(losses.index(min(losses)))

"""Importing what a stage works with: torch, transformers, lm-eval, 5,000 modules in all."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """An import leaves a million objects and hardly any garbage, for which Python would look through them again and again:
    not while they are made, and not later either. What was garbage before is not kept with them: it may be a model."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

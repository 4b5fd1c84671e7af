"""Numbers that are no means, with their intervals over subjects. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.subjects import Drawn, Subjects, stretch

_AT_ONCE = 2**22
"""Weights of resamples that are computed at once."""


def drawn(measure: Callable[[NDArray[Any]], Mapping[Any, NDArray[Any]]], subjects: Subjects) -> dict[Any, Drawn]:
    """Each number, and what it would be of other subjects; all from the same resamples, so differences are paired.

    Args:
        measure: weights of the items [R, n] -> numbers by name [R].
    """
    n = len(subjects.numbers)
    rows = max(1, _AT_ONCE // n)
    found = [measure(subjects.weights[start : start + rows]) for start in range(0, len(subjects.weights), rows)]
    widened = stretch(subjects.count(np.ones(n)))
    return {
        name: subjects.of_seeds(value, np.concatenate([each[name] for each in found])[None], widened)
        for name, value in measure(np.ones((1, n))).items()
    }

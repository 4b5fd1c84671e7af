"""What a repair asks of a model; told before any work, or, where that takes numbers, as soon as there are some."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Obstacle = Callable[["PreTrainedModel"], str | None]


class Trial:
    """Tries a model out.

    Args:
        obstacle: what keeps a model from it; None if nothing does, or if its shapes alone do not tell.
        sentence: what cannot be, with a place for `model`.
        option: the field of a request to which the hint belongs.
    """

    def __init__(self, obstacle: Obstacle, sentence: str, hint: str, option: str) -> None:
        self._obstacle, self._told_by_shapes = obstacle, lru_cache(maxsize=8)(obstacle)
        self._sentence, self._hint, self._option = sentence, hint, option

    def problems(self, weights: Weights) -> list[Problem]:
        """What the shapes of a model tell."""
        return self._problems(self._told_by_shapes(weights.architecture()), weights.config.model)

    def refuse(self, model: PreTrainedModel) -> None:
        """
        Raises:
            RequestError: a model with its numbers cannot do it, which shapes alone did not tell.
        """
        if problems := self._problems(self._obstacle(model), type(model).__name__):
            raise RequestError(*problems)

    def _problems(self, why: str | None, model: str) -> list[Problem]:
        return [] if why is None else [Problem(f"{self._sentence.format(model=model)}: {why}", self._hint, self._option)]

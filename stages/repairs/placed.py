"""A repair that is put in place on its model: what it takes, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.models.prompt_cache import PromptCache
from llmrepair.models.selection import Score, Selector, TokenSelector

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Placing:
    """What a repair may use to put itself in place.

    Attributes:
        options: its own, of the class that `Repair.options()` names.
        tuned: folder of what was tuned: an adapter, or a pool of them; None where nothing was.
        measured: folder of what was measured of that; None where nothing was.
        seed: that it was tuned with, for what is drawn at random.
        scoring: the prompts of a pool -> what scores texts behind them.
        sources: what `Repair.sources()` found.
        sequences: computed at once; None for as many as usual.
        note: says something to the user.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    options: Any
    tuned: Path | None
    seed: int
    scoring: Callable[[PromptCache], Score]
    measured: Path | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)
    sequences: int | None = None
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Placed:
    """A model with its repair in place."""

    model: PreTrainedModel
    pool: PromptCache | None = None
    """The prompts."""
    selector: Selector | None = None
    last: int | None = None
    """What inputs begin with in place of a beginning of their own: the last token of a text in front of them that has one,
    whose others are the pool; or what stands in front of the prompts, whose last vectors take its place."""
    extra_parameters: int = 0
    """What inference has to hold beside the weights."""
    routing: Mapping[str, Any] | None = None
    """What is known of how prompts are chosen, as JSON values, where held-out text says something of it."""
    changes_weights: bool = False
    """Whether its linear layers now have other weights, unpacked: their bits, zeros and size are counted anew."""

    @property
    def cache(self) -> PromptCache | None:
        """The prompts that are put in front of inputs; None where the model's tokens see the pool by themselves."""
        return None if isinstance(self.selector, TokenSelector) else self.pool


def positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the model takes, prompts included."""
    most = getattr(model.config, "max_position_embeddings", None) or -1  # which XLNet says: there is no end
    return most if most > 0 else min(tokenizer.model_max_length, 2048)

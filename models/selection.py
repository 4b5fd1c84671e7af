"""Which prompt of a pool each input gets.

A selector looks at the context and never at an answer, so all choices of a question share their prompt. The one exception,
a choice by document, is there for bounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from llmrepair.models.memory import is_out_of_memory, text_does_not_fit
from llmrepair.models.prompt_cache import ENSEMBLE
from llmrepair.models.routing import Router
from llmrepair.models.transfer import sent
from llmrepair.models.trees import Text, Tokens

Answer = TypeVar("Answer")
Document = tuple[str, int]
"""A task's name and the number of one of its documents."""


Score = Callable[[Sequence[Text]], list[tuple[float, bool]]]
"""`Scorer.score`: texts -> their log-likelihoods, and what does not matter here."""


class Selector(Protocol):
    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        """One index into the pool, or `ENSEMBLE`, for each context.

        Args:
            contexts: token ids, none empty; begun with BOS where that stands in front of the prompts.
            documents: what each context is taken from, where that is known.
        """


@dataclass(frozen=True)
class FixedSelector:
    """Every input gets the same prompt."""

    index: int

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        return [self.index] * len(contexts)


@dataclass(frozen=True)
class RandomSelector:
    """Each context gets one of `prompts` prompts by lot: the same one in any order, batch and process."""

    prompts: int
    seed: int

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        return [self._drawn(context) for context in contexts]

    def _drawn(self, context: list[int]) -> int:
        digest = hashlib.sha256(json.dumps([self.seed, context]).encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.prompts


@dataclass(frozen=True)
class LossSelector:
    """Each context gets the prompt behind which it is the likeliest itself, from its second token on.

    Of equals the first is taken, as for a context of one token.
    """

    prompts: int
    score: Score

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        unique = {tuple(context): 0 for context in contexts}
        longer = [context for context in unique if len(context) > 1]
        texts = [Text(prompt, context, 1) for context in longer for prompt in range(self.prompts)]
        loglikelihoods = [total for total, _ in self.score(texts)]
        for number, context in enumerate(longer):
            own = loglikelihoods[number * self.prompts : (number + 1) * self.prompts]
            unique[context] = own.index(max(own))
        return [unique[tuple(context)] for context in contexts]


@dataclass(frozen=True)
class EnsembleSelector:
    """Every context is put behind each prompt."""

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        return [ENSEMBLE] * len(contexts)


@dataclass(frozen=True)
class DocumentSelector:
    """What was chosen for each document beforehand."""

    chosen: Mapping[Document, int]

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        return [self.chosen[document] for _, document in zip(contexts, documents, strict=True)]


@dataclass(frozen=True)
class RoutedSelector:
    """Each input gets the prompt that its tokens attend to most.

    Args:
        batch_size: contexts at once; fewer from when so many do not fit in memory.
    """

    router: Router
    batch_size: int

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        return _for_each(contexts, self._chosen, self.batch_size)

    def _chosen(self, batch: Sequence[Tokens]) -> list[int]:
        return self.router.votes(*pad_rows(batch, self.router.cache.mask.device)).argmax(1).tolist()


@dataclass(frozen=True)
class TokenSelector:
    """Each token sees the prompt that it attends to most; the model itself sees to that (`see_pool_by_token`).

    Args:
        batch_size: contexts at once; fewer from when so many do not fit in memory.
    """

    router: Router
    batch_size: int

    def select(self, contexts: Sequence[list[int]], documents: Sequence[Document] = ()) -> list[int]:
        """0 for each context: one pool stands in front of all of them."""
        return [0] * len(contexts)

    def of_tokens(self, contexts: Sequence[list[int]]) -> list[list[int]]:
        """The prompt that each token of a context sees, but for BOS in front of the prompts."""
        return _for_each(contexts, self._chosen, self.batch_size)

    def _chosen(self, batch: Sequence[Tokens]) -> list[list[int]]:
        chosen = self.router.token_votes(*pad_rows(batch, self.router.cache.mask.device)).argmax(-1).tolist()
        first = int(self.router.cache.begun is not None)
        return [row[first : len(context)] for row, context in zip(chosen, batch, strict=True)]


def _for_each(
    contexts: Sequence[list[int]], ask: Callable[[Sequence[Tokens]], Sequence[Answer]], batch_size: int
) -> list[Answer]:
    """Answers to contexts, each asked once and those of about one length together.

    Raises:
        DoesNotFit: one context alone is too much for the memory.
    """
    waiting = sorted({tuple(context) for context in contexts}, key=len)
    answers: dict[Tokens, Answer] = {}
    while waiting:
        batch = waiting[:batch_size]
        try:
            answers |= zip(batch, ask(batch), strict=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise text_does_not_fit(len(batch[0])) from error
            batch_size = len(batch) // 2
        else:
            del waiting[: len(batch)]
    return [answers[tuple(context)] for context in contexts]


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device, side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] padded with 0, and the bool mask [B, T] of what is real."""
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    padded = [[*row, *gap] if side == "right" else [*gap, *row] for row, gap in zip(rows, gaps, strict=True)]
    columns, lengths = torch.arange(width), torch.tensor([len(row) for row in rows])[:, None]
    mask = columns < lengths if side == "right" else columns >= width - lengths
    return sent(torch.tensor(padded, dtype=torch.long), device), sent(mask, device)

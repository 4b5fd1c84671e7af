"""All prompts of a pool together: the mean of the log-probabilities of the next token behind each of them.

The means are not scaled to add up to 1 as probabilities, so a text's log-likelihood is the mean of those behind each prompt.

Shapes: m prompts, B contexts, R sequences of each, N places, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llmrepair.models.prompt_cache import ENSEMBLE, PromptCache, extend_cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel


def members(cache: PromptCache | None, choice: torch.Tensor) -> list[torch.Tensor]:
    """The choices of prompts [B] over which a batch is averaged: `choice` alone where it holds no ensemble."""
    if cache is None or ENSEMBLE not in choice.tolist():
        return [choice]
    return [torch.where(choice == ENSEMBLE, prompt, choice) for prompt in range(cache.size)]


def extend_members(model: PreTrainedModel, cache: PromptCache, tokens: Sequence[int]) -> PromptCache:
    """A pool in which tokens that many inputs begin with stand behind each prompt."""
    extended = [extend_cache(model, cache, prompt, tokens) for prompt in range(cache.size)]
    layers = [
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
        for layer in zip(*(each.layers for each in extended), strict=True)
    ]
    return PromptCache(layers, torch.cat([each.mask for each in extended]))


def mean_log_probabilities(passes: Iterable[torch.Tensor]) -> torch.Tensor:
    """The mean [N, V], in float32, of the log-probabilities of passes with logits [N, V] in any precision."""
    total: torch.Tensor | None = None
    for number, logits in enumerate(passes):
        log_probabilities = logits.float().log_softmax(-1)
        total = log_probabilities if total is None else total.lerp_(log_probabilities, 1 / (number + 1))
    assert total is not None  # there is at least one pass
    return total


class Averaging(LogitsProcessor):
    """Lets m neighbouring sequences go on with the same token: all that follows from their mean log-probabilities.

    Where tokens are sampled, sequences would draw each for itself. So one is drawn here for all m, and no other left.

    Args:
        size: m.
        sequences: R, beams or samples of each context, side by side.
        warpers: what is done to the scores before a token is drawn from them; None for no drawing.
    """

    def __init__(self, size: int, sequences: int, warpers: LogitsProcessorList | None):
        self._rows = (-1, size, sequences)
        self._warpers = warpers

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        by_member = scores.float().log_softmax(-1).unflatten(0, self._rows)
        means = by_member.mean(1, keepdim=True).expand_as(by_member).flatten(0, 2)
        if self._warpers is None:
            return means
        warped: torch.Tensor = self._warpers(input_ids, means).unflatten(0, self._rows)[:, 0]
        drawn = torch.multinomial(warped.flatten(0, 1).softmax(-1), 1).unflatten(0, (len(warped), 1, -1))
        drawn = drawn.expand(-1, self._rows[1], -1, -1).flatten(0, 2)
        return torch.full_like(means, float("-inf")).scatter(1, drawn, 0.0)


def averaging(model: Any, size: int, sequences: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for `generate` with `size` rows per context, rows of one context side by side, and `sequences` of each row."""
    config, _ = model._prepare_generation_config(None, **options)  # the model's and the library's defaults too
    warpers = None
    if config.do_sample:
        kinds = (("temperature", TemperatureLogitsWarper), ("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper))
        values = [(getattr(config, name), kind) for name, kind in (*kinds, ("min_p", MinPLogitsWarper))]
        warpers = LogitsProcessorList(kind(value) for value, kind in values if value)
    return {**options, "logits_processor": LogitsProcessorList([Averaging(size, sequences, warpers)])}

"""A forward pass over trees: each token sees its prompt, its ancestors and itself.

Shapes: B trees of up to T tokens, P cached columns, N places in a batch, V the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.memory import is_out_of_memory
from llmrepair.models.prompt_cache import PromptCache, forward_with_prompt, giving_way
from llmrepair.models.routing import POOL_ATTENTION
from llmrepair.models.selection import pad_rows
from llmrepair.models.trees import Text, Tree, grow_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = ("sdpa", "eager", POOL_ATTENTION)  # the implementations that take any mask
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")  # what families call the span of local attention
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative; a wrong mask or position is off by far more
_TOLERANCE_OF_HALVES = 0.05


def logits_of_trees(
    model: PreTrainedModel, cache: PromptCache | None, choice: torch.Tensor, trees: Sequence[Tree], places: torch.Tensor
) -> torch.Tensor:
    """Logits [N, V] after some tokens of trees.

    Args:
        choice: [B], the prompt in front of each.
        places: [N], b * T + t for token t of tree b.
    """
    ids, mask = pad_rows([tree.tokens for tree in trees], choice.device)
    with _logits_only_at(model, places):
        if all(tree.is_chain for tree in trees):
            if cache is None:  # no token sees the padding behind it, and without a mask attention is faster
                return model(input_ids=ids, use_cache=False).logits[0]
            return forward_with_prompt(model, cache, choice, ids, mask)[0]
        depths, _ = pad_rows([tree.depths for tree in trees], choice.device)
        ends, _ = pad_rows([tree.ends for tree in trees], choice.device)
        seen = _ancestors(ends, mask)
        if cache is None:
            options: dict[str, Any] = {"position_ids": depths, "use_cache": False}
        else:
            past, past_mask = cache.chosen(choice)
            seen = torch.cat([past_mask[:, None].expand(-1, ids.shape[1], -1), seen], dim=-1)
            options = {"position_ids": cache.length + depths, "past_key_values": past}
        with giving_way(model, cache, choice, mask & (depths == 0)):
            return model(input_ids=ids, attention_mask=_additive(seen, model.dtype), **options).logits[0]


def _ancestors(ends: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, T, T] bool, true where a token sees another. Padding sees itself, for attention to nothing is not a number."""
    places = torch.arange(ends.shape[1], device=ends.device)
    ends = torch.where(mask, ends, places + 1)
    return (places <= places[:, None]) & (places[:, None] < ends[:, None])


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, T, S], 0 where `seen`: eager attention adds its mask, and would take a bool for numbers."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


@contextmanager
def _logits_only_at(model: PreTrainedModel, places: torch.Tensor) -> Iterator[None]:
    """The model's logits become [1, N, V]: hidden states are gathered in front of its head, whatever it does behind it.
    Of some families (ProphetNet) they are not [B, T, E] there, but [B, streams, T, E]."""

    def gather(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *others = arguments
        return (hidden.movedim(-2, 1).flatten(0, 1)[places][None].movedim(1, -2), *others)

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()


def attention_window(model: PreTrainedModel) -> int | None:
    """The fewest tokens that a layer of local attention looks back on; None if all layers see everything."""
    windows = [window for name in _WINDOWS if (window := getattr(model.config.get_text_config(), name, None))]
    return min(windows, default=None)


@torch.no_grad()
def takes_trees(model: PreTrainedModel) -> bool:
    """Whether the model computes for a tree what it computes for its texts one by one.

    It is tried out: position ids and masks are silently ignored by families that have no use for them (ALiBi, recurrent
    layers), and by some attention kernels.
    """
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    biased_by_distance = getattr(model.config, "alibi", False)  # counted in columns, and such a model may refuse the mask
    if model.config._attn_implementation not in _ATTENTION or not takes_positions or biased_by_distance:
        return False
    texts = [Text(0, (3, 4, 5, 6, 7, 8, 9), 4), Text(0, (3, 4, 5, 6, 9, 5, 3), 4)]
    alone = torch.cat([_last_logits(model, grow_trees([text])) for text in texts])
    try:
        together = _last_logits(model, grow_trees(texts))
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:  # of a family that takes no such mask
        if is_out_of_memory(error):
            raise
        return False
    difference = (together - alone).norm() / alone.norm()
    return bool(difference <= _TOLERANCE.get(alone.dtype, _TOLERANCE_OF_HALVES))


def _last_logits(model: PreTrainedModel, trees: Sequence[Tree]) -> torch.Tensor:
    """Logits [texts, V] before the last token of each text of one tree."""
    places = torch.tensor([path[-1] for path in trees[0].paths.values()], device=model.device)
    return logits_of_trees(model, None, torch.zeros(1, dtype=torch.long, device=model.device), trees, places)

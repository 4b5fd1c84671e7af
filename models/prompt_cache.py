"""Keys and values of soft prompts, computed once per model and shared by every request.

A prompt does not depend on the input, so no request has to pay for its tokens again. Prompts of a pool are right-aligned:
with `P` the longest length, a prompt of n tokens stands at positions P - n ... P - 1 and every input starts at position P,
whichever prompt it gets. Rotary models see relative positions alone and cannot tell; with learned absolute positions (OPT)
the input would otherwise be moved by the choice of its prompt.

Shapes: m prompts, B sequences, T input tokens, H key-value heads, D head dimension, E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PromptCache:
    """The cached keys and values of a pool of m prompts."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of each layer, [m, H, P, D]; what stands before a shorter prompt is masked."""
    mask: torch.Tensor
    """[m, P] bool, true where a prompt has a token."""
    starts: torch.Tensor
    """[m], the position at which an input behind each of them starts: P for prompts, earlier behind padded contexts."""

    @property
    def size(self) -> int:
        """m, the number of prompts."""
        return self.mask.shape[0]

    @property
    def length(self) -> int:
        """P, how many positions are cached."""
        return self.mask.shape[1]

    def chosen(self, choice: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
        """A cache in which sequence b sees prompt `choice[b]` alone, and its mask [B, P].

        A forward pass changes the cache it is given, so each call makes a new one.
        """
        if self.size == 1:
            batch = len(choice)
            return _cache([(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in self.layers]), (
                self.mask.expand(batch, -1)
            )
        return _cache([(k[choice], v[choice]) for k, v in self.layers]), self.mask[choice]

    def side_by_side(self, batch: int) -> tuple[DynamicCache, torch.Tensor]:
        """A cache in which every sequence sees all prompts, and its mask [B, m * P]. No prompt sees another."""
        flat = [(_side_by_side(k, batch), _side_by_side(v, batch)) for k, v in self.layers]
        return _cache(flat), self.mask.reshape(1, -1).expand(batch, -1)


def _cache(layers: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    return cache


def _side_by_side(states: torch.Tensor, batch: int) -> torch.Tensor:
    """[m, H, P, D] -> [B, H, m * P, D]."""
    return states.transpose(0, 1).flatten(1, 2).expand(batch, -1, -1, -1)


def build_prompt_cache(model: PreTrainedModel, prompts: Sequence[torch.Tensor], length: int | None = None) -> PromptCache:
    """Runs each prompt through the model on its own and keeps its keys and values.

    Args:
        prompts: m tensors [n, E] on the model's device; gradients flow back into them.
        length: P, if the input is to start later than the longest prompt ends.
    """
    length = max(len(prompt) for prompt in prompts) if length is None else length
    states = [_prefill(model, prompt, length) for prompt in prompts]
    layers = [
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
        for layer in zip(*states, strict=True)
    ]
    columns = torch.arange(length, device=prompts[0].device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=columns.device)
    return PromptCache(layers, columns >= length - lengths[:, None], torch.full_like(lengths, length))


def _prefill(model: PreTrainedModel, prompt: torch.Tensor, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of one prompt, [1, H, P, D] per layer, right-aligned to `length`."""
    start = length - len(prompt)
    positions = torch.arange(start, length, device=prompt.device)[None]
    output = model(inputs_embeds=prompt[None], position_ids=positions, use_cache=True, logits_to_keep=1)
    pad = (0, 0, start, 0)
    return [(functional.pad(layer.keys, pad), functional.pad(layer.values, pad)) for layer in output.past_key_values.layers]


def input_positions(mask: torch.Tensor, start: int | torch.Tensor) -> torch.Tensor:
    """Position ids [B, T] of an input padded on either side; its first real token stands at `start`, a number or [B, 1]."""
    return start + (mask.long().cumsum(1) - 1).clamp(min=0)


def forward_with_prompt(
    model: torch.nn.Module,
    cache: PromptCache | None,
    choice: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    **options: object,
) -> torch.Tensor:
    """Logits of inputs [B, T] (padded on either side, mask [B, T]), sequence b behind prompt `choice[b]`.

    Without a cache this is the plain model. `options` go to the model, such as `logits_to_keep`.
    """
    if cache is None:
        positions = input_positions(mask, 0)
        return model(input_ids=input_ids, attention_mask=mask.long(), position_ids=positions, use_cache=False, **options).logits
    past, past_mask = cache.chosen(choice)
    return model(
        input_ids=input_ids,
        past_key_values=past,
        attention_mask=torch.cat([past_mask, mask.bool()], dim=1).long(),
        position_ids=input_positions(mask, cache.starts[choice, None]),
        **options,
    ).logits


def cache_contexts(
    model: torch.nn.Module, cache: PromptCache | None, choice: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, PromptCache]:
    """Runs contexts [B, T], padded on the left, behind their prompts, for the continuations that share them.

    Returns:
        Logits [B, V] after each context, and a cache in which the B contexts stand where prompts would.
    """
    past, past_mask = cache.chosen(choice) if cache is not None else (DynamicCache(), mask[:, :0].bool())
    starts = cache.starts[choice] if cache is not None else torch.zeros_like(choice)
    seen = torch.cat([past_mask, mask.bool()], dim=1)
    output = model(
        input_ids=input_ids,
        past_key_values=past,
        attention_mask=seen.long(),
        position_ids=input_positions(mask, starts[:, None]),
        use_cache=True,
        logits_to_keep=1,
    )
    layers = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
    return output.logits[:, -1], PromptCache(layers, seen, starts + mask.long().sum(1))

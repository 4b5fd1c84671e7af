"""Keys and values of soft prompts, computed once per model and shared by every request.

A prompt does not depend on the input, so no request has to pay for its tokens again. Prompts of a pool are right-aligned:
with `P` the longest length, a prompt of n tokens stands at positions P - n ... P - 1 and every input starts at position P,
whichever prompt it gets. Rotary models see relative positions alone and cannot tell; with learned absolute positions (OPT)
the input would otherwise be moved by the choice of its prompt.

Where texts begin with a token, it stands in front of the prompt: [BOS][prompt][text]. Inputs go on beginning with it, and it
gives way: BOS and all vectors of the prompt but the last are cached, and that one takes the place of BOS in the input. So
lengths and positions are those of the input, and what is said behind its first token is what is said behind the prompt.

Shapes: m prompts, B sequences, T input tokens, H key-value heads, D head dimension, E hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llmrepair.models.embedded import embedded, scale_of_tokens
from llmrepair.models.transfer import sent

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENSEMBLE = -1
"""The choice of all prompts together: what they make of the next token is averaged (see `ensemble`)."""


@dataclass(frozen=True)
class Opening:
    """The token that begins texts, to be put in front of prompts.

    Attributes:
        vector: [1, E], what stands for it.
        scale: of what stands for tokens over their embeddings.
    """

    token: int
    vector: torch.Tensor
    scale: float


def opening(model: PreTrainedModel, token: int | None) -> Opening | None:
    """None where texts begin with no token."""
    if token is None:
        return None
    return Opening(token, embedded(model, torch.tensor([token])).to(model.dtype), scale_of_tokens(model))


@dataclass(frozen=True)
class Begun:
    """What prompts that stand behind a token have besides what is cached of them.

    Attributes:
        token: that inputs begin with.
        last: [m, E], the last vectors, as embeddings.
        whole: the same prompts with their last vectors cached too, for inputs that do not begin with the token.
    """

    token: int
    last: torch.Tensor
    whole: PromptCache


@dataclass(frozen=True)
class PromptCache:
    """The cached keys and values of a pool of m prompts."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of each layer, [m, H, P, D]; what stands before a shorter prompt is masked."""
    mask: torch.Tensor
    """[m, P] bool, true where a prompt has a token."""
    begun: Begun | None = None
    """Where BOS stands in front of the prompts."""

    @property
    def bos(self) -> int | None:
        """The token that every input has to begin with, for it gives way to the prompt's last vector."""
        return self.begun.token if self.begun is not None else None

    @property
    def size(self) -> int:
        """m, the number of prompts."""
        return self.mask.shape[0]

    @property
    def length(self) -> int:
        """P, how many positions are cached."""
        return self.mask.shape[1]

    def chosen(self, choice: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
        """A cache for one forward pass in which sequence b sees prompt `choice[b]` alone, and its mask [B, P].

        It does not keep what the pass adds, and holds a layer's keys and values for the whole batch only while that layer
        computes. A choice that lies on the CPU is looked at: where all have chosen one prompt, layers need not pick it out.
        """
        pool, picked = self, choice
        if choice.device.type == "cpu" and len(prompts := set(choice.tolist())) == 1:
            pool, picked = self._only(prompts.pop()), torch.zeros_like(choice)
        picked = sent(picked, self.mask.device)
        cache = DynamicCache()
        cache.layers = [_PromptLayer(keys, values, picked) for keys, values in pool.layers]
        return cache, pool.mask[picked]

    def _only(self, prompt: int) -> PromptCache:
        """A pool of one of the prompts."""
        one = slice(prompt, prompt + 1)
        return PromptCache([(keys[one], values[one]) for keys, values in self.layers], self.mask[one])

    def growing(self, choice: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
        """The same as a cache that keeps what is added, for generation."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self.layers):
            cache.update(keys[choice], values[choice], index)
        return cache, self.mask[choice]

    def side_by_side(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [H, m * P, D] of all prompts in one layer."""
        keys, values = self.layers[layer]
        return keys.transpose(0, 1).flatten(1, 2), values.transpose(0, 1).flatten(1, 2)


class _PromptLayer(DynamicLayer):
    """Keys and values that stand in front of those of a forward pass."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, choice: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self._choice = choice

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.keys is not None and self.values is not None  # transformers' layers may start empty; these do not
        return _in_front(self.keys, self._choice, key_states), _in_front(self.values, self._choice, value_states)


def _in_front(states: torch.Tensor, choice: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """States [m, H, P, D] that are chosen for each sequence in front of [B, H, T, D], copied once: [B, H, P + T, D]."""
    if len(states) == 1:  # as in tuning, where gradients flow back into the prompt
        return torch.cat([states.expand(len(choice), -1, -1, -1), added], dim=-2)
    positions = states.shape[-2]
    joined = added.new_empty(*added.shape[:2], positions + added.shape[-2], added.shape[-1])
    torch.index_select(states, 0, choice, out=joined[:, :, :positions])
    joined[:, :, positions:] = added
    return joined


def build_prompt_cache(
    model: PreTrainedModel, prompts: Sequence[torch.Tensor], length: int | None = None, begin: Opening | None = None
) -> PromptCache:
    """Runs each prompt through the model on its own and keeps its keys and values.

    Args:
        prompts: m tensors [n, E] on the model's device; gradients flow back into them.
        length: P, if the input is to start later than the longest prompt ends.
        begin: what stands in front of each prompt, if anything does.
    """
    length = max(len(prompt) for prompt in prompts) if length is None else length
    if begin is None:
        return _prefilled(model, prompts, length)
    whole = _prefilled(model, [torch.cat([begin.vector, prompt]) for prompt in prompts], length + 1)
    last = torch.stack([prompt[-1] for prompt in prompts]) / begin.scale
    layers = [(keys[:, :, :-1], values[:, :, :-1]) for keys, values in whole.layers]
    return PromptCache(layers, whole.mask[:, :-1], Begun(begin.token, last, whole))


def _prefilled(model: PreTrainedModel, prompts: Sequence[torch.Tensor], length: int) -> PromptCache:
    states = [_prefill(model, prompt, length) for prompt in prompts]
    layers = [
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
        for layer in zip(*states, strict=True)
    ]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return PromptCache(layers, sent(torch.arange(length) >= length - lengths[:, None], prompts[0].device))


def _prefill(model: PreTrainedModel, prompt: torch.Tensor, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of one prompt, [1, H, P, D] per layer, right-aligned to `length`."""
    start = length - len(prompt)
    positions = torch.arange(start, length, device=prompt.device)[None]
    options: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
    options["past_key_values"] = DynamicCache()  # the model's own would keep of local attention what the last token sees
    output = model(inputs_embeds=prompt[None], position_ids=positions, **options)
    pad = (0, 0, start, 0)
    return [(functional.pad(layer.keys, pad), functional.pad(layer.values, pad)) for layer in output.past_key_values.layers]


def input_positions(mask: torch.Tensor, start: int) -> torch.Tensor:
    """Position ids [B, T] of an input padded on either side; its first real token stands at `start`."""
    return start + (mask.long().cumsum(1) - 1).clamp(min=0)


def options_behind(past: tuple[DynamicCache, torch.Tensor], mask: torch.Tensor) -> dict[str, torch.Tensor | DynamicCache]:
    """What a model is given beside inputs with mask [B, T] so that they stand behind what is cached, with its mask [B, P]."""
    cache, past_mask = past
    return {
        "past_key_values": cache,
        "attention_mask": torch.cat([past_mask, mask.bool()], dim=1).long(),
        "position_ids": input_positions(mask, past_mask.shape[1]),
    }


def forward_with_prompt(
    model: PreTrainedModel,
    cache: PromptCache,
    choice: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Logits [B, T, V] of inputs [B, T] (padded on either side, mask [B, T]), sequence b behind prompt `choice[b]`."""
    return pass_with_prompt(model, cache, choice, input_ids, mask, **options).logits


def pass_with_prompt(
    model: PreTrainedModel,
    cache: PromptCache,
    choice: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    **options: Any,
) -> Any:
    """The same with all else that the model says."""
    with giving_way(model, cache, choice, first_tokens(mask)):
        return model(input_ids=input_ids, **options_behind(cache.chosen(choice), mask), **options)


def first_tokens(mask: torch.Tensor) -> torch.Tensor:
    """[B, T] bool, true at the first real token of each input with mask [B, T]."""
    return mask.bool() & (mask.long().cumsum(1) == 1)


@contextmanager
def giving_way(model: PreTrainedModel, cache: PromptCache | None, choice: torch.Tensor, first: torch.Tensor) -> Iterator[None]:
    """In the next forward pass, the tokens that begin inputs give way to the last vector of prompt `choice[b]`.

    Args:
        first: [B, T] bool, true at those tokens.
    """
    if cache is None or cache.begun is None:
        yield
        return
    vectors = cache.begun.last[sent(choice, cache.begun.last.device)][:, None]

    def put(module: torch.nn.Module, arguments: Any, embeddings: torch.Tensor) -> torch.Tensor:
        hook.remove()  # the tokens that a generation adds are its own
        return torch.where(first[..., None], vectors.to(embeddings.dtype), embeddings)

    hook = model.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()


def begun_once(tokens: Sequence[int], bos: int | None) -> list[int]:
    """An input as prompts take it: begun with their token, if there is one."""
    return list(tokens) if bos is None or tokens[:1] == [bos] else [bos, *tokens]


@torch.no_grad()
def extend_cache(model: PreTrainedModel, cache: PromptCache | None, prompt: int, tokens: Sequence[int]) -> PromptCache:
    """A cache of one prompt: prompt `prompt` of `cache`, if there is one, and tokens behind it that many inputs begin with."""
    input_ids = torch.tensor([tokens], device=model.device)
    past, mask, start = DynamicCache(), torch.ones_like(input_ids, dtype=torch.bool), 0
    if cache is not None:
        past, past_mask = cache.growing(torch.tensor([prompt], device=model.device))
        mask, start = torch.cat([past_mask, mask], dim=1), cache.length
    positions = torch.arange(start, start + len(tokens), device=model.device)[None]
    with giving_way(model, cache, torch.tensor([prompt]), positions == start):
        output = model(
            input_ids=input_ids,
            past_key_values=past,
            attention_mask=mask.long(),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
    return PromptCache([(layer.keys, layer.values) for layer in output.past_key_values.layers], mask)

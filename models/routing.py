"""Inference-time dynamic prompting: each input picks the prompt of a pool that its tokens attend to most.

Source: Hoang et al., *Do Compressed LLMs Forget Knowledge?*, arXiv 2310.00867. Its abstract fixes only that prompts stand
side by side and the one with the largest mean attention from the input is kept. What it leaves open is an option here.

Shapes: m prompts of P columns, B sequences, T input tokens, S = m * P + T keys, Q query and H key-value heads, D the head
dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from llmrepair.models.prompt_cache import PromptCache, input_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Reduce = Literal["mean", "sum"]
_ATTENTION = "llmrepair_votes"


def attention_votes(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    prompt_mask: torch.Tensor,
    input_mask: torch.Tensor,
    reduce: Reduce,
) -> torch.Tensor:
    """How much the input attends to each prompt in one layer.

    The attention weights are those of a forward pass in which the input sees all prompts and itself. They are averaged
    over heads and input tokens, and over (`mean`) or summed over (`sum`) the tokens of a prompt; the two differ where
    prompts differ in length.

    Args:
        query: [B, Q, T, D].
        key: [B, H, S, D], the m * P prompt columns first.
        mask: [B, 1, T, S] bool, true where a query sees a key.
        scaling: factor on the dot products.
        prompt_mask: [m, P] bool, true where a prompt has a token.
        input_mask: [B, T] bool, true at input tokens that vote.

    Returns:
        votes [B, m] in float32.
    """
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query @ keys.transpose(-1, -2)).float() * scaling
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)  # a padding row sees nothing
    to_prompts = weights[..., : prompt_mask.numel()].mean(1).unflatten(-1, prompt_mask.shape)  # [B, T, m, P]
    voting = input_mask[..., None, None].float()
    per_column = (to_prompts * voting).sum(1) / voting.sum(1)  # [B, m, P]
    votes = per_column.sum(-1)
    return votes / prompt_mask.sum(-1) if reduce == "mean" else votes


@dataclass
class _Ballot:
    """Collects votes during a forward pass."""

    layers: frozenset[int]
    prompt_mask: torch.Tensor
    input_mask: torch.Tensor
    reduce: Reduce
    votes: dict[int, torch.Tensor] = field(default_factory=dict)


class _VotesComplete(Exception):
    """Ends a forward pass whose remaining layers nobody needs."""


def _voting_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    prompt_ballot: _Ballot | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    assert prompt_ballot is not None  # this function is in place only while a ballot is held
    layer: int = module.layer_idx  # type: ignore[assignment]
    if layer in prompt_ballot.layers:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        prompt_ballot.votes[layer] = attention_votes(
            query, key, attention_mask, scaling, prompt_ballot.prompt_mask, prompt_ballot.input_mask, prompt_ballot.reduce
        )
        if len(prompt_ballot.votes) == len(prompt_ballot.layers):
            raise _VotesComplete
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)


def _full_mask(*arguments: Any, **options: Any) -> torch.Tensor:
    """Transformers leaves the mask out where sdpa knows it by itself; counting votes needs it written out."""
    return sdpa_mask(*arguments, **(options | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}))


AttentionInterface.register(_ATTENTION, _voting_attention)
AttentionMaskInterface.register(_ATTENTION, _full_mask)


@dataclass(frozen=True)
class Router:
    """Chooses a prompt per sequence.

    `layers` are the indices of the layers that vote; their votes are averaged. The pass ends at the last of them, so a vote
    in the first layer costs its attention and nothing more. It is its own pass: layers before a deeper vote have seen all
    prompts, and what they computed is not what the chosen prompt alone would give.
    """

    model: PreTrainedModel
    cache: PromptCache
    layers: Sequence[int] = (0,)
    reduce: Reduce = "mean"

    @torch.no_grad()
    def votes(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Votes [B, m] of inputs [B, T], padded on either side, with mask [B, T]."""
        past, past_mask = self.cache.side_by_side(len(input_ids))
        ballot = _Ballot(frozenset(self.layers), self.cache.mask, mask.bool(), self.reduce)
        with _attention(self.model, _ATTENTION), suppress(_VotesComplete):
            self.model(
                input_ids=input_ids,
                past_key_values=past,
                attention_mask=torch.cat([past_mask, mask.bool()], dim=1).long(),
                position_ids=input_positions(mask, self.cache.length),
                prompt_ballot=ballot,
            )
        return torch.stack(list(ballot.votes.values())).mean(0)


@contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def voting_layers(choice: str, number_of_layers: int) -> tuple[int, ...]:
    """The layers that `first`, `all` or a list such as `0,2` name.

    Raises:
        ValueError: not one of these, or a layer that does not exist.
    """
    if choice == "first":
        return (0,)
    if choice == "all":
        return tuple(range(number_of_layers))
    layers = tuple(int(part) for part in choice.split(","))
    if any(not 0 <= layer < number_of_layers for layer in layers):
        raise ValueError(f"layers {layers} of a model with {number_of_layers}")
    return layers

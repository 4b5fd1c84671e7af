"""Inference-time dynamic prompting: each input picks the prompt of a pool that its tokens attend to most.

Source: Hoang et al., *Do Compressed LLMs Forget Knowledge?*, arXiv 2310.00867. Its abstract fixes only that prompts stand
side by side and the one with the largest mean attention from the input is kept. What it leaves open is an option here.

Shapes: m prompts of P columns, B sequences, T input tokens, of which t are looked at at once, S keys of the input (T and those
it has cached), Q query and H key-value heads, D the head dimension, K sums of attention weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from llmrepair.models.prompt_cache import PromptCache, first_tokens, input_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Reduce = Literal["mean", "sum", "max"]
Normalise = Literal["none", "length"]
Scales = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Layer -> what is subtracted from its votes, and by what they are then divided: [n, m] each, for inputs of 1 to n tokens, the
last for longer ones too."""
POOL_ATTENTION = "llmrepair_pool"
_SEEN_AT_ONCE = {"cpu": 2**22, "cuda": 2**27}  # of [B, t, m * P + S]


def column_weights(
    query: torch.Tensor, key: torch.Tensor, seen: torch.Tensor, columns: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention weights, added up over columns and averaged over heads.

    They come from the attention kernel itself, which keeps no matrix of weights: with values that are 1 at some columns and
    0 at the others, its output is the sum of the weights on those.

    Args:
        query: [B, Q, t, D].
        key: [B, Q, S, D].
        seen: [B, 1, t, S] bool; each query sees something.
        columns: [M, K], for K sums which of the first M keys count.
        scaling: factor on the dot products.

    Returns:
        [B, t, K] in float32.
    """
    parts = []
    for part in columns.to(query.dtype).split(query.shape[-1], dim=1):  # kernels want values as wide as keys
        values = functional.pad(part, (0, query.shape[-1] - part.shape[1], 0, key.shape[2] - len(part))).expand_as(key)
        output = functional.scaled_dot_product_attention(query, key, values, seen, scale=scaling)
        parts.append(output[..., : part.shape[1]].float().mean(1))
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class Router:
    """Chooses a prompt per sequence or per token.

    `layers` are the indices of the layers that vote; their votes are averaged. A vote is the attention that a prompt's tokens
    get, averaged over heads (and over the tokens of a sequence): its `mean`, `sum` or `max` over the prompt's tokens, and
    with `normalise="length"` divided by how many they are. Votes of a sequence are put on `scales` before they are averaged.
    Where BOS stands in front of the prompts, it neither votes nor is voted for: it would draw most of the attention.

    The pass ends at the last layer that votes, before it looks at any value. So a vote in the first layer costs the
    embeddings, that layer's norm, its queries and keys (and values where they are one projection), and the vote. It is its
    own pass: what it has computed is computed once more behind the chosen prompt, for layers before a deeper vote have seen
    all prompts.
    """

    model: PreTrainedModel
    cache: PromptCache
    layers: Sequence[int] = (0,)
    reduce: Reduce = "mean"
    normalise: Normalise = "none"
    scales: Scales = field(default_factory=dict)

    def votes(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Votes [B, m] of inputs [B, T], padded on either side, with mask [B, T]; zeros of one that is BOS alone."""
        voting = self._voting(mask)
        votes = self._counted(_SequencePool(self, voting), input_ids, voting)
        total = self.mean({layer: self._scaled(layer, own, voting.sum(1)) for layer, own in votes.items()})
        return total.where(voting.any(1, keepdim=True), 0)

    def token_votes(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Votes [B, T, m] of each token of inputs [B, T], padded on either side, with mask [B, T]."""
        return self.mean(self._counted(_TokenPool(self, votes_only=True), input_ids, self._voting(mask)))

    def prefix_votes(self, input_ids: torch.Tensor) -> dict[int, torch.Tensor]:
        """Votes [B, T, m] of the first token of inputs [B, T], of the first two, and so on, as each of `layers` that can vote
        counts them; BOS is left out."""
        own = input_ids if self.cache.begun is None else input_ids[:, 1:]
        return self._counted(_PrefixPool(self, votes_only=True), own, torch.ones_like(own))

    @property
    def pool(self) -> PromptCache:
        """The prompts side by side, with all their vectors."""
        return self.cache if self.cache.begun is None else self.cache.begun.whole

    def _voting(self, mask: torch.Tensor) -> torch.Tensor:
        """[B, T] bool, true at tokens of inputs with mask [B, T] that vote."""
        return mask.bool() if self.cache.begun is None else mask.bool() & ~first_tokens(mask)

    def mean(self, votes: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """The votes of all layers together."""
        total = torch.zeros((), device=self.cache.mask.device)
        for own in votes.values():
            total = total + own
        return total / len(self.layers)

    def _scaled(self, layer: int, votes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Votes [B, m] of inputs of so many tokens [B] on the layer's scale."""
        if layer not in self.scales:
            return votes
        subtracted, divisor = (of_lengths.to(votes) for of_lengths in self.scales[layer])
        place = lengths.clamp(1, len(divisor)) - 1
        return (votes - subtracted[place]) / divisor[place]

    @torch.no_grad()
    def _counted(self, pool: _Pool, input_ids: torch.Tensor, mask: torch.Tensor) -> dict[int, torch.Tensor]:
        with _pool_attention(self.model), self._no_values(), suppress(_VotesComplete):
            self.model(
                input_ids=input_ids,
                attention_mask=mask.long(),
                position_ids=input_positions(mask, self.pool.length),
                use_cache=False,
                prompt_pool=pool,
            )
        return pool.votes

    @contextmanager
    def _no_values(self) -> Iterator[None]:
        """The last layer that votes has no use for its values."""
        layers = (module for module in self.model.modules() if getattr(module, "layer_idx", None) == max(self.layers))
        attention: Any = next((module for module in layers if hasattr(module, "v_proj")), None)
        if attention is None:  # queries, keys and values come from one projection
            yield
            return
        before, values = attention.v_proj, self.cache.layers[max(self.layers)][1]
        attention.v_proj = _NoValues(values.shape[1] * values.shape[3])
        try:
            yield
        finally:
            attention.v_proj = before

    def columns(self) -> torch.Tensor:
        """[m * P, K], the sums of weights that votes are made of: of each prompt, or of each column for the greatest."""
        mask = self._voted_for()
        columns = torch.eye(mask.numel(), device=mask.device)
        if self.reduce != "max":
            columns = torch.eye(len(mask), device=mask.device).repeat_interleave(mask.shape[1], dim=0)
        return columns * mask.flatten()[:, None]

    def _voted_for(self) -> torch.Tensor:
        """[m, P] bool, true where a prompt has a token of its own."""
        mask = self.pool.mask
        return mask if self.cache.begun is None else mask & ~first_tokens(mask)

    def of_prompts(self, sums: torch.Tensor) -> torch.Tensor:
        """Votes [..., m] from sums of weights [..., K]."""
        lengths = self._voted_for().sum(-1)
        votes = sums.unflatten(-1, self.pool.mask.shape).amax(-1) if self.reduce == "max" else sums
        votes = votes / lengths if self.reduce == "mean" else votes
        return votes / lengths if self.normalise == "length" else votes


def see_pool_by_token(router: Router) -> None:
    """From now on each token of the router's model sees, of the prompts, the one that it attends to most itself.

    All prompts are cached side by side; what a token sees is cut down to its choice in the last layer that votes, so layers
    before that let it see all of them. A token votes from what stands before it and itself, whatever comes after. The model
    is used like one without prompts: positions are moved behind the prompts here.

    Where BOS stands in front of the prompts, every input has to begin with it. There it is alone: it sees no prompt, for none
    is chosen before a token votes, and no other token sees it, for each sees the BOS of its prompt.
    """
    router.model.set_attn_implementation(POOL_ATTENTION)

    def place_behind_pool(
        module: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if "prompt_pool" in options:  # a count of votes
            return arguments, options
        positions = options.get("position_ids")
        positions = _positions(arguments, options) if positions is None else positions
        return arguments, options | {"position_ids": positions + router.cache.length, "prompt_pool": _TokenPool(router)}

    router.model.register_forward_pre_hook(place_behind_pool, with_kwargs=True)


def _positions(arguments: tuple[Any, ...], options: dict[str, Any]) -> torch.Tensor:
    """Position ids [B or 1, T] of an input for which nobody gave any."""
    input_ids = arguments[0] if arguments else options["input_ids"]
    mask, past = options.get("attention_mask"), options.get("past_key_values")
    if mask is not None:
        return input_positions(mask, 0)[:, -input_ids.shape[1] :]
    seen = past.get_seq_length() if past is not None else 0
    return torch.arange(seen, seen + input_ids.shape[1], device=input_ids.device)[None]


class _VotesComplete(Exception):
    """Ends a forward pass whose remaining layers nobody needs."""


class _NoValues(torch.nn.Module):
    """A projection to nothing, in the shape of one."""

    def __init__(self, width: int):
        super().__init__()
        self._width = width

    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        return hidden.new_zeros(()).expand(*hidden.shape[:-1], self._width)


class _Pool:
    """A pool of prompts during one forward pass: attention in which the input sees them, and the votes it casts.

    Args:
        votes_only: the pass ends with the last vote.
    """

    def __init__(self, router: Router, votes_only: bool):
        self.router = router
        self._votes_only = votes_only
        self._begins = router.cache.begun is not None and not votes_only
        self.votes: dict[int, torch.Tensor] = {}
        """Of each layer that has voted."""

    def count(self, sums: Iterator[torch.Tensor]) -> torch.Tensor:
        """The votes of a layer, from sums of weights [B, t, K] of some tokens after the others."""
        raise NotImplementedError

    def kept(self, rows: slice) -> torch.Tensor:
        """[B, t, m] bool, the prompts that tokens see once all layers have voted."""
        raise NotImplementedError

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """[B, Q, T, D], in steps over the queries that bound what is in memory at once.

        Args:
            query: [B, Q, T, D].
            key: [B, H, S, D], of the input.
            value: [B, H, S, D].
            mask: of the input's keys: [B, S] bool true at tokens, [B, 1, T, S] with 0 where a query sees one, or None.
            window: how many positions a query looks back; None for all.
        """
        prompt_key, prompt_value = self.router.pool.side_by_side(layer)
        view = _View(self.router.pool, mask, query, key.shape[2], window, self._begins)
        keys = _in_front(prompt_key, key, query.shape[1])
        last = max(self.router.layers)
        if layer in self.router.layers:
            columns = self.router.columns()
            self.votes[layer] = self.count(
                column_weights(query[:, :, rows], keys[:, :, : view.end(rows)], view.of(rows), columns, scaling)
                for rows in view.steps()
            )
            if layer == last and self._votes_only:
                raise _VotesComplete
        values = _in_front(prompt_value, value, query.shape[1])
        output = []
        for rows in view.steps():
            seen, end = view.of(rows), view.end(rows)
            if layer >= last:
                seen[..., : prompt_key.shape[1]] &= self.kept(rows).repeat_interleave(self.router.pool.length, dim=-1)[:, None]
            output.append(
                functional.scaled_dot_product_attention(
                    query[:, :, rows], keys[:, :, :end], values[:, :, :end], seen, scale=scaling
                )
            )
        return torch.cat(output, dim=2)


def _in_front(states: torch.Tensor, own: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, Q, m * P + S, D] from [H, m * P, D] and [B, H, S, D]: kernels that take a mask want keys for each query head."""
    together = torch.cat([states.expand(len(own), -1, -1, -1), own], dim=2)
    return together.repeat_interleave(heads // own.shape[1], dim=1) if heads != own.shape[1] else together


class _SequencePool(_Pool):
    """Tokens vote together.

    Args:
        voting: [B, T] bool, true at tokens that vote.
    """

    def __init__(self, router: Router, voting: torch.Tensor):
        super().__init__(router, votes_only=True)
        self._voting = voting.float()

    def count(self, sums: Iterator[torch.Tensor]) -> torch.Tensor:
        total, start = torch.zeros((), device=self._voting.device), 0
        for part in sums:
            total = total + torch.einsum("btk,bt->bk", part, self._voting[:, start : start + part.shape[1]])
            start += part.shape[1]
        return self.router.of_prompts(total / self._voting.sum(1, keepdim=True).clamp(min=1))


class _TokenPool(_Pool):
    """Each token votes for itself, and then sees its choice alone."""

    def __init__(self, router: Router, votes_only: bool = False):
        super().__init__(router, votes_only)

    def count(self, sums: Iterator[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self.router.of_prompts(part) for part in sums], dim=1)

    def kept(self, rows: slice) -> torch.Tensor:
        return functional.one_hot(self.router.mean(self.votes)[:, rows].argmax(-1), self.router.cache.size).bool()


class _PrefixPool(_Pool):
    """Each token votes together with those before it."""

    def count(self, sums: Iterator[torch.Tensor]) -> torch.Tensor:
        total = torch.cat(list(sums), dim=1).cumsum(1)
        return self.router.of_prompts(total / torch.arange(1, total.shape[1] + 1, device=total.device)[:, None])


class _View:
    """What queries see, written out for some of them at a time; they are the last T of S tokens, behind prompts.

    Args:
        begins: the first token of an input is alone.
    """

    def __init__(
        self, cache: PromptCache, mask: torch.Tensor | None, query: torch.Tensor, keys: int, window: int | None, begins: bool
    ):
        self._cache = cache
        self._mask = mask
        self._batch, _, self._queries, _ = query.shape
        self._past = keys - self._queries
        self._window = window
        self._begins = begins
        self._at_once = _SEEN_AT_ONCE.get(query.device.type, _SEEN_AT_ONCE["cpu"])

    def steps(self) -> Iterator[slice]:
        """The queries, so many at a time that what they see is not too large."""
        size = max(1, self._at_once // (self._batch * self.end(slice(0, self._queries))))
        return (slice(start, min(start + size, self._queries)) for start in range(0, self._queries, size))

    def end(self, rows: slice) -> int:
        """Of how many columns, the prompts' first, something is seen."""
        return self._cache.mask.numel() + self._past + int(rows.stop)

    def of(self, rows: slice) -> torch.Tensor:
        """[B, 1, t, end] bool."""
        parts = (self._prompts(rows), self._own(rows))
        if self._begins:
            parts = self._without_first(*parts, slice(self._past + rows.start, self._past + rows.stop))
        return torch.cat([part.expand(self._batch, rows.stop - rows.start, -1) for part in parts], dim=-1)[:, None]

    def _without_first(self, prompts: torch.Tensor, own: torch.Tensor, queries: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The same where first tokens see themselves alone, and no other token sees them."""
        first, columns = self._first(), torch.arange(queries.stop, device=own.device)
        alone = columns == columns[queries, None]
        return prompts & ~first[:, queries, None], own & (~first[:, None, : queries.stop] | alone)

    def _first(self) -> torch.Tensor:
        """[B, S] or [1, S] bool, true at first tokens; of trees also at padding, which sees itself alone as they do."""
        if self._mask is not None and self._mask.dim() == 2:
            return first_tokens(self._mask)
        if self._mask is not None and not self._past:
            return (self._mask[:, 0] == 0).sum(-1) == 1
        return (torch.arange(self._past + self._queries, device=self._cache.mask.device) == 0)[None]

    def _own(self, rows: slice) -> torch.Tensor:
        end = self._past + rows.stop
        if self._mask is not None and self._mask.dim() == 4:
            return self._mask[:, 0, rows, :end] == 0
        columns = torch.arange(end, device=self._cache.mask.device)
        queries = columns[self._past + rows.start :, None]
        seen = columns <= queries
        if self._window is not None:
            seen = seen & (queries - columns < self._window)
        if self._mask is None:
            return seen
        return (seen & self._mask[:, None, :end]) | (columns == queries)  # attention to nothing is not a number

    def _prompts(self, rows: slice) -> torch.Tensor:
        mask = self._cache.mask.flatten()
        if self._window is None or (self._mask is not None and self._mask.dim() == 4):
            return mask
        queries = torch.arange(self._past + rows.start, self._past + rows.stop, device=mask.device)
        positions = queries[None] if self._mask is None else input_positions(self._mask, 0)[:, queries]
        columns = torch.arange(self._cache.length, device=mask.device).repeat(self._cache.size)
        return mask & (positions[..., None] + self._cache.length - columns < self._window)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prompt_pool: _Pool | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    if prompt_pool is None:
        raise TypeError("layers of this family hand nothing on to their attention")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: int = module.layer_idx  # type: ignore[assignment]
    output = prompt_pool.attend(layer, query, key, value, attention_mask, scaling, sliding_window)
    return output.transpose(1, 2).contiguous(), None


def _mask_of_tokens(*arguments: Any, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """[B, S] as it was given: what each query sees is written out for a few of them at a time."""
    return attention_mask


AttentionInterface.register(POOL_ATTENTION, _attention)
AttentionMaskInterface.register(POOL_ATTENTION, _mask_of_tokens)


@contextmanager
def _pool_attention(model: PreTrainedModel) -> Iterator[None]:
    config = model.config  # `set_attn_implementation` walks through all modules, which takes longer than a layer
    before = config._attn_implementation
    config._attn_implementation = POOL_ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


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

"""Inference-time dynamic prompting: each input picks the prompt of a pool that its tokens attend to most.

Source: Hoang et al., *Do Compressed LLMs Forget Knowledge?*, arXiv 2310.00867. Its abstract fixes only that prompts stand
side by side and the one with the largest mean attention from the input is kept. What it leaves open is an option here.

Shapes: m prompts of P columns, B sequences, T input tokens, of which t are looked at at once, S keys of the input (T and those
it has cached), Q query and H key-value heads, D the head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from llmrepair.models.prompt_cache import PromptCache, input_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Reduce = Literal["mean", "sum", "max"]
Normalise = Literal["none", "length"]
POOL_ATTENTION = "llmrepair_pool"
_WEIGHTS_AT_ONCE = {"cpu": 2**21, "cuda": 2**26}  # numbers of [B, Q, t, m * P + S]


def prompt_weights(
    query: torch.Tensor,
    prompt_key: torch.Tensor,
    key: torch.Tensor,
    sees_prompts: torch.Tensor,
    sees: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Attention weights on prompts of queries that see prompts and an input, averaged over heads.

    Args:
        query: [B, Q, t, D].
        prompt_key: [H, m * P, D].
        key: [B, H, S, D].
        sees_prompts: bool, broadcast to [B, t, m * P].
        sees: bool, broadcast to [B, t, S]; each query sees something.
        scaling: factor on the dot products.

    Returns:
        [B, t, m * P] in float32.
    """
    grouped = query.unflatten(1, (len(prompt_key), -1))
    on_prompts = torch.einsum("bhgtd,hsd->bhgts", grouped, prompt_key).float() * scaling
    on_input = (grouped @ key.unsqueeze(2).transpose(-1, -2)).float() * scaling
    on_prompts = on_prompts.masked_fill_(~sees_prompts[:, None, None], float("-inf"))
    on_input = on_input.masked_fill_(~sees[:, None, None], float("-inf"))
    normaliser = torch.logaddexp(on_prompts.logsumexp(-1), on_input.logsumexp(-1))
    return (on_prompts - normaliser[..., None]).exp().mean((1, 2))


@dataclass(frozen=True)
class Router:
    """Chooses a prompt per sequence or per token.

    `layers` are the indices of the layers that vote; their votes are averaged. A vote is the attention that a prompt's tokens
    get, averaged over heads (and over the tokens of a sequence): its `mean`, `sum` or `max` over the prompt's tokens, and
    with `normalise="length"` divided by how many they are.

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

    def votes(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Votes [B, m] of inputs [B, T], padded on either side, with mask [B, T]."""
        return self._counted(_SequencePool(self, mask.bool()), input_ids, mask)

    def token_votes(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Votes [B, T, m] of each token of inputs [B, T], padded on either side, with mask [B, T]."""
        return self._counted(_TokenPool(self, votes_only=True), input_ids, mask)

    @torch.no_grad()
    def _counted(self, pool: _Pool, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with _pool_attention(self.model), self._no_values(), suppress(_VotesComplete):
            self.model(
                input_ids=input_ids,
                attention_mask=mask.long(),
                position_ids=input_positions(mask, self.cache.length),
                use_cache=False,
                prompt_pool=pool,
            )
        return pool.mean_votes

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

    def of_prompts(self, weights: torch.Tensor) -> torch.Tensor:
        """Votes [..., m] from the weights [..., m * P] of the prompts' columns, 0 where there is no token."""
        columns, lengths = weights.unflatten(-1, self.cache.mask.shape), self.cache.mask.sum(-1)
        votes = columns.amax(-1) if self.reduce == "max" else columns.sum(-1)
        votes = votes / lengths if self.reduce == "mean" else votes
        return votes / lengths if self.normalise == "length" else votes


def see_pool_by_token(router: Router) -> None:
    """From now on each token of the router's model sees, of the prompts, the one that it attends to most itself.

    All prompts are cached side by side; what a token sees is cut down to its choice in the last layer that votes, so layers
    before that let it see all of them. A token votes from what stands before it and itself, whatever comes after. The model is used
    like one without prompts: positions are moved behind the prompts here.
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

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.new_zeros(()).expand(*hidden.shape[:-1], self._width)


class _Pool:
    """A pool of prompts during one forward pass: attention in which the input sees them, and the votes it casts.

    Args:
        votes_only: the pass ends with the last vote.
    """

    def __init__(self, router: Router, votes_only: bool):
        self.router = router
        self._votes_only = votes_only
        self._votes = torch.zeros(())

    @property
    def mean_votes(self) -> torch.Tensor:
        """The votes of all layers together."""
        return self._votes / len(self.router.layers)

    def count(self, weights: Iterator[torch.Tensor]) -> torch.Tensor:
        """The votes of a layer, from the weights [B, t, m * P] of some tokens after the others."""
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
        prompt_key, prompt_value = self.router.cache.side_by_side(layer)
        view = _View(self.router.cache, mask, query.shape[2], key.shape[2], window)
        steps = _steps(query, prompt_key.shape[1] + key.shape[2])
        last = max(self.router.layers)
        if layer in self.router.layers:
            self._votes = self._votes.to(query.device) + self.count(
                prompt_weights(query[:, :, rows], prompt_key, key[:, :, : view.end(rows)], *view.of(rows), scaling)
                for rows in steps
            )
            if layer == last and self._votes_only:
                raise _VotesComplete
        keys = torch.cat([prompt_key.expand(len(key), -1, -1, -1), key], dim=2)
        values = torch.cat([prompt_value.expand(len(value), -1, -1, -1), value], dim=2)
        output = []
        for rows in steps:
            sees_prompts, sees = view.of(rows)
            if layer >= last:
                sees_prompts = sees_prompts & self.kept(rows).repeat_interleave(self.router.cache.length, dim=-1)
            shape = (len(query), sees.shape[1], -1)
            seen = torch.cat([sees_prompts.expand(shape), sees.expand(shape)], dim=-1)[:, None]
            end = seen.shape[-1]
            output.append(
                functional.scaled_dot_product_attention(
                    query[:, :, rows],
                    keys[:, :, :end],
                    values[:, :, :end],
                    seen,
                    scale=scaling,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        return torch.cat(output, dim=2)


class _SequencePool(_Pool):
    """Tokens vote together.

    Args:
        voting: [B, T] bool, true at tokens that vote.
    """

    def __init__(self, router: Router, voting: torch.Tensor):
        super().__init__(router, votes_only=True)
        self._voting = voting.float()

    def count(self, weights: Iterator[torch.Tensor]) -> torch.Tensor:
        total, start = torch.zeros((), device=self._voting.device), 0
        for part in weights:
            total = total + torch.einsum("bts,bt->bs", part, self._voting[:, start : start + part.shape[1]])
            start += part.shape[1]
        return self.router.of_prompts(total / self._voting.sum(1, keepdim=True))


class _TokenPool(_Pool):
    """Each token votes for itself, and then sees its choice alone."""

    def __init__(self, router: Router, votes_only: bool = False):
        super().__init__(router, votes_only)

    def count(self, weights: Iterator[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self.router.of_prompts(part) for part in weights], dim=1)

    def kept(self, rows: slice) -> torch.Tensor:
        return functional.one_hot(self._votes[:, rows].argmax(-1), self.router.cache.size).bool()


class _View:
    """What queries see; the queries are the last T of S tokens, behind prompts."""

    def __init__(self, cache: PromptCache, mask: torch.Tensor | None, queries: int, keys: int, window: int | None):
        self._cache = cache
        self._mask = mask
        self._past = keys - queries
        self._window = window

    def end(self, rows: slice) -> int:
        """Of how many keys something is seen."""
        return self._past + int(rows.stop)

    def of(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Bools that broadcast to [B, t, m * P] and [B, t, end]."""
        prompts, mask = self._cache.mask.reshape(1, 1, -1), self._mask
        if mask is not None and mask.dim() == 4:
            return prompts, mask[:, 0, rows, : self.end(rows)] == 0
        columns = torch.arange(self.end(rows), device=prompts.device)
        queries = columns[self._past + rows.start :, None]
        sees = columns <= queries
        if self._window is not None:
            positions = queries[None] if mask is None else input_positions(mask, 0)[:, queries]
            prompt_columns = torch.arange(self._cache.length, device=columns.device).repeat(self._cache.size)
            prompts = prompts & (positions + self._cache.length - prompt_columns < self._window)
            sees = sees & (queries - columns < self._window)
        if mask is None:
            return prompts, sees[None]
        return prompts, (sees & mask[:, None, : len(columns)]) | (columns == queries)  # nothing seen is not a number


def _steps(query: torch.Tensor, keys: int) -> list[slice]:
    batch, heads, length, _ = query.shape
    size = max(1, _WEIGHTS_AT_ONCE.get(query.device.type, _WEIGHTS_AT_ONCE["cpu"]) // (batch * heads * keys))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prompt_pool: _Pool,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
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
    before = model.config._attn_implementation
    model.set_attn_implementation(POOL_ATTENTION)
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

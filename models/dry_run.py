"""A forward pass without numbers: what it would hold in memory, and which layers are shown the same inputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmrepair.models.experts import experts_as_layers, layers_of_experts
from llmrepair.models.loading import compressible_layers
from llmrepair.models.postponed import postponed

with postponed():
    from compressed_tensors.utils import patch_attr
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class DryRun:
    """What a pass of some tokens holds besides the weights. Bytes.

    Attributes:
        tokens: that pass.
        passed_on: what goes from one block to the next: hidden states, mask, positions.
        working: the most that a block makes while it computes, its outputs included.
        groups: of each block, the names of compressible layers, those together that share their inputs.
    """

    tokens: int
    passed_on: int = 0
    working: int = 0
    groups: list[list[list[str]]] = field(default_factory=lambda: [[]])


def dry_run(model: PreTrainedModel, rows: int, tokens: int, fused: bool = False) -> DryRun:
    """Passes `rows` x `tokens` tokens through a model on the meta device, up to its output head.

    Args:
        fused: attention holds none of its scores. Its mask is made all the same.

    Raises:
        NeedsNumbers: this model cannot be run so.
    """
    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    with torch.no_grad(), experts_as_layers(model), showing_experts_all(model):
        watch = _Watch(model, rows * tokens)
        with attending(model, NO_ATTENTION if fused else "eager"), watch.hooks(), watch.live:
            _without_numbers(model.base_model, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    watch.found.working = max(watch.found.working, watch.live.peak)
    return watch.found


def try_shapes(model: PreTrainedModel) -> None:
    """Has a model on the meta device compute two tokens as it does by default; what its layers or its code miss is raised.

    Raises:
        NeedsNumbers: this model cannot be run so.
    """
    ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
    with torch.no_grad(), experts_as_layers(model), showing_experts_all(model), attending(model, "eager"):
        _without_numbers(model, input_ids=ids, attention_mask=torch.ones_like(ids))


def _without_numbers(model: torch.nn.Module, **options: Any) -> Any:
    try:
        return model(**options)
    except RuntimeError as error:
        if "meta" not in str(error).lower():  # shapes that do not fit together, of which meta tensors tell as others do
            raise
        raise NeedsNumbers(str(error)) from error


@contextmanager
def showing_experts_all(model: PreTrainedModel) -> Iterator[None]:
    """Each expert is shown as many tokens as there are: without numbers no router can tell which."""
    with ExitStack() as stack:
        for module, layers in layers_of_experts(model).items():
            stack.enter_context(patch_attr(module, "forward", partial(_shown_all, layers)))
        yield


def _shown_all(layers: Sequence[Any], hidden: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
    for layer in layers:
        layer(hidden.new_empty(hidden.shape[:-1].numel(), layer.in_features))
    return torch.zeros_like(hidden)


def blocks_of(model: PreTrainedModel) -> list[torch.nn.Module]:
    """A model's blocks, as llm-compressor tells them: the modules that no one would split between devices."""
    return [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]


def _no_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *others: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Zeros [B, T, heads, D]."""
    batch, heads, tokens, _ = query.shape
    return query.new_zeros(batch, tokens, heads, value.shape[-1]), None


NO_ATTENTION = "llmrepair-no-attention"
"""Attention that computes nothing, behind a mask that is made all the same."""
AttentionInterface.register(NO_ATTENTION, _no_attention)
AttentionMaskInterface.register(NO_ATTENTION, eager_mask)


@contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = before


class NeedsNumbers(Exception):
    """A model whose code looks at numbers, which there are none of."""


class _Watch:
    """Hooks that look at blocks and at compressible layers as they are called."""

    def __init__(self, model: PreTrainedModel, tokens: int):
        self.found = DryRun(tokens)
        self.live = _Live([*model.parameters(), *model.buffers()])
        self._blocks = blocks_of(model)
        self._layers = compressible_layers(model)
        self._latest: object = None
        self._live_before = 0

    @contextmanager
    def hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for block in self._blocks:
                stack.callback(block.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(block.register_forward_hook(self._leave).remove)
            for name, layer in self._layers.items():
                stack.callback(layer.register_forward_pre_hook(self._grouping(name)).remove)
            yield

    def _enter(self, block: torch.nn.Module, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors((arguments, dict(named)))}
        self.found.passed_on = max(self.found.passed_on, sum(storages.values()))
        self.found.working = max(self.found.working, self.live.peak - self._live_before)
        self.found.groups.append([])
        self._live_before = self.live.peak = self.live.bytes

    def _leave(self, block: torch.nn.Module, arguments: object, output: object) -> None:
        self.found.working = max(self.found.working, self.live.peak - self._live_before)
        self._live_before = self.live.peak = self.live.bytes

    def _grouping(self, name: str) -> Callable[[torch.nn.Module, Sequence[torch.Tensor]], None]:
        """As in a calibration, layers that are called in a row with one tensor share their inputs."""

        def see(layer: torch.nn.Module, arguments: Sequence[torch.Tensor]) -> None:
            if arguments[0] is not self._latest:
                self.found.groups[-1].append([])
            self.found.groups[-1][-1].append(name)
            self._latest = arguments[0]

        return see


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that were made and are not let go yet; those of `known` tensors do not count."""

    def __init__(self, known: Sequence[torch.Tensor]):
        super().__init__()
        self.bytes = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, arguments: Any = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        output = operation(*arguments, **(named or {}))
        for tensor in _tensors(output):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._counted:
                self._counted.add(storage._cdata)
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                weakref.finalize(storage, self._let_go, storage._cdata, storage.nbytes())
        return output

    def _let_go(self, storage: int, size: int) -> None:
        self._counted.discard(storage)
        self.bytes -= size


def _tensors(values: object) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]

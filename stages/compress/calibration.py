"""Shows a model's layers their inputs, and has each compressed before those after it see its outputs.

llm-compressor traces the model into parts of a block each, and keeps on the CPU what passes between them; one part at a time
is on the accelerator. Inside a block the order is that of the calls as well (what GPTQ's authors call true sequential): the
projection behind the attention is compressed for what the compressed queries, keys and values let through.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from compressed_tensors.offload import disable_offloading, remove_dispatch, set_onload_device
from compressed_tensors.utils import patch_attr
from llmcompressor.args.dataset_arguments import DatasetArguments
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential.ast_utils.name_analyzer import NameAnalyzer
from llmcompressor.pipelines.sequential.helpers import SequentialTracer, Subgraph, trace_subgraphs
from llmcompressor.utils.helpers import calibration_forward_context
from llmcompressor.utils.pytorch.module import infer_sequential_targets
from torch.fx import _symbolic_trace
from torch.utils._pytree import tree_leaves

from llmrepair.models.dry_run import NO_ATTENTION
from llmrepair.models.experts import tensors_of_layers
from llmrepair.models.loading import weight_matrix
from llmrepair.models.second_moment import Inputs
from llmrepair.pipeline.errors import Problem, RequestError, is_out_of_memory
from llmrepair.stages.compress.experts import showing_all_tokens
from llmrepair.stages.compress.rows import are_few, hessians_at_once, kept_numbers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_Result = TypeVar("_Result")


Visit = Callable[[list[str], Inputs], None]
"""Called with the names of layers that share their inputs, once all of these are in. May change the layers' weights."""


def calibrate(
    model: PreTrainedModel,
    layers: Mapping[str, torch.nn.Module],
    rows: torch.Tensor,
    batch_size: int,
    device: torch.device,
    visit: Visit,
    dense_inputs: bool = False,
    all_experts: bool = False,
) -> None:
    """Visits all `layers`, in the order in which the model uses them.

    Args:
        model: on the CPU, or on `device` as a whole.
        rows: token ids [N, T], of which `batch_size` rows pass a block at a time.
        dense_inputs: a block is shown what the blocks before it let through as they were before their visits.
        all_experts: experts are shown all tokens, also those that the router sends to others.
    """
    batches = [{"input_ids": batch.to(device)} for batch in rows.split(batch_size)]
    attention = "sdpa" if model.config._attn_implementation == "sdpa" else "eager"  # both take the mask that is made for eager
    names = {layer: name for name, layer in layers.items()}
    set_onload_device(model, device)
    with tracing():
        blocks = infer_sequential_targets(model)
        parts = _traced(model, batches[0], blocks, names)
        held = IntermediatesCache(offload_device=_where_to_hold(model, rows, device))
        for batch in batches:
            held.append(batch)
        with calibration_forward_context(model):
            for traced in parts:
                is_first = traced is parts[0]  # it makes the mask
                attend = patch_attr(model.config, "_attn_implementation", "eager" if is_first else attention)
                with disable_offloading(), attend:  # of this part, until it is through
                    part = _Part(model, traced, held, rows.numel(), all_experts)
                    part.compress(names, visit, traced is not parts[-1], dense_inputs)
    remove_dispatch(model)


def _traced(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], blocks: str | list[str], names: Mapping[torch.nn.Module, str]
) -> list[Subgraph]:
    """The parts of a model.

    Raises:
        RequestError: llm-compressor cannot tell them apart.
    """
    hint = "give --method none, or report it"
    try:
        parts = trace_subgraphs(model, batch, blocks, DatasetArguments().tracing_ignore)  # type: ignore[arg-type]
    except Exception as error:  # it is the code of any family, written anew
        if is_out_of_memory(error):
            raise
        message = f"the code of {type(model).__name__} cannot be followed: llm-compressor does not trace it"
        raise RequestError(Problem(message, hint, "model")) from error
    reached = {layer for part in parts for layer in part.submodules(model)}
    if missed := [name for layer, name in names.items() if layer not in reached]:
        message = f"the code of {type(model).__name__} cannot be followed: `{missed[0]}` is in none of its blocks as traced"
        raise RequestError(Problem(message, hint, "model"))
    return parts


def _where_to_hold(model: PreTrainedModel, rows: torch.Tensor, device: torch.device) -> torch.device:
    """Where what passes between blocks is kept: on a GPU if it takes little of what is free there."""
    numbers = rows.numel() * (model.config.get_text_config().hidden_size + rows.shape[1])  # hidden states and mask
    return device if are_few(numbers * model.dtype.itemsize, device) else torch.device("cpu")


@contextmanager
def tracing() -> Iterator[None]:
    """llm-compressor's tracing, mended, and without what it would leave behind."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # warns of how llm-compressor calls it
    with (
        patch_attr(_symbolic_trace, "_wrapped_fns_to_patch", dict(_symbolic_trace._wrapped_fns_to_patch)),  # holds the model
        patch_attr(SequentialTracer, "create_arg", _create_argument),
        patch_attr(NameAnalyzer, "__init__", _leave_out),
    ):
        yield


def _create_argument(tracer: SequentialTracer, value: Any, create: Callable[..., Any] = SequentialTracer.create_arg) -> Any:
    """The model's config is passed as it is. A copy, as llm-compressor passes, does not say that attention is eager: Mistral
    and Phi-3 would make no mask for it, and look ahead."""
    if value is tracer.root.config:
        return tracer.create_node("get_attr", "config", (), {})
    return create(tracer, value)


def _leave_out(analyser: NameAnalyzer, omit: set[str]) -> None:
    """Builtins are not left out with the names of a module, as llm-compressor has it: TrOCR calls a variable `input`. Those
    that are none of a function's variables never become arguments anyway."""
    analyser._omit = omit


class _Stop(BaseException):
    """Ends a forward pass that showed what it was for. Not an `Exception`: llm-compressor makes other ones of those."""


class _Part:
    """A part of a model, and what the parts before it pass on to it and to later ones.

    Groups of layers are shown their inputs one after the other, each in passes that begin where the part does; experts share
    passes. Where memory allows, compressed layers give their outputs at once and keep them, and attention is left out where
    these are all that it would lead to: so each is computed once.
    """

    def __init__(self, model: PreTrainedModel, part: Subgraph, held: IntermediatesCache, tokens: int, all_experts: bool):
        self._model, self._part, self._held, self._tokens, self._all_experts = model, part, held, tokens, all_experts
        self._outputs_of: dict[torch.nn.Module, list[torch.Tensor | None]] = {}
        self._batch = 0

    def compress(self, names: Mapping[torch.nn.Module, str], visit: Visit, passes_on: bool, as_it_was: bool) -> None:
        """Shows layers their inputs, and has later parts, if there are any, see the outputs of this one, as it was before."""
        layers = [layer for layer in self._part.submodules(self._model) if layer in names]
        groups, never_twice = self._groups(layers)
        keeps = never_twice and not self._all_experts and self._has_room_for_outputs(layers)
        if passes_on and as_it_was:
            self._pass_on(is_through=False)
        with ExitStack() as stack:
            for wave in self._waves(groups, names):
                firsts = [group[0] for group in wave]
                each = self._each(partial(self._shown, firsts))
                shown = list(each) if keeps else each
                for place, (group, inputs) in enumerate(zip(wave, _summed(firsts, shown), strict=True)):
                    visit([names[layer] for layer in group], inputs)
                    for layer in group if keeps else ():
                        seen = [given[place] for given in shown]
                        self._outputs_of[layer] = [None if inputs is None else layer(inputs) for inputs in seen]
                        stack.enter_context(patch_attr(layer, "forward", partial(self._kept, layer)))
            if passes_on and not as_it_was:
                self._pass_on(is_through=True)
        if passes_on and as_it_was:
            for batch in range(len(self._held)):
                self._let_go(batch)

    def _has_room_for_outputs(self, layers: Sequence[torch.nn.Module]) -> bool:
        weights = [weight_matrix(layer) for layer in layers]
        numbers = self._tokens * kept_numbers([weight.shape for weight in weights])
        return bool(weights) and are_few(numbers * weights[0].dtype.itemsize, weights[0].device)

    def _groups(self, layers: Sequence[torch.nn.Module]) -> tuple[list[list[torch.nn.Module]], bool]:
        """Layers in the order in which the first batch calls them, those together that are called in a row with one tensor
        (queries, keys, values); then those that it does not call, such as experts of other tokens. And whether it calls none
        of them twice."""
        groups: list[list[torch.nn.Module]] = []
        latest: torch.Tensor | None = None

        def see(layer: torch.nn.Module, arguments: Sequence[torch.Tensor]) -> None:
            nonlocal latest
            if arguments[0] is not latest:
                groups.append([])
            groups[-1].append(layer)
            latest = arguments[0]

        with _hooks(layers, see):
            self._outputs(0)
        called = Counter(layer for group in groups for layer in group)
        return groups + [[layer] for layer in layers if layer not in called], all(called[layer] <= 1 for layer in layers)

    def _waves(
        self, groups: Sequence[list[torch.nn.Module]], names: Mapping[torch.nn.Module, str]
    ) -> Iterator[list[list[torch.nn.Module]]]:
        """Groups that are shown their inputs in the same passes, for none sees what another puts out: those of experts whose
        matrices are in one tensor, as many as there is room for Hessians."""
        tensors, waves = tensors_of_layers(self._model), defaultdict(list)
        for group in groups:
            name = names[group[0]]
            waves[tensors.get(name, name)].append(group)
        for wave in waves.values():
            at_once = hessians_at_once(weight_matrix(wave[0][0]).shape[1])
            yield from (wave[start : start + at_once] for start in range(0, len(wave), at_once))

    def _shown(self, layers: Sequence[torch.nn.Module], batch: int) -> list[torch.Tensor | None]:
        """What each layer is called with; None if it is not."""
        seen: dict[torch.nn.Module, torch.Tensor] = {}

        def see(layer: torch.nn.Module, arguments: Sequence[torch.Tensor]) -> None:
            seen.setdefault(layer, arguments[0])
            if len(seen) == len(layers):
                raise _Stop

        routing = showing_all_tokens(self._model) if self._all_experts else nullcontext()
        with _hooks(layers, see), suppress(_Stop), routing:
            self._outputs(batch)
        return [seen.get(layer) for layer in layers]

    def _kept(self, layer: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor | None:
        """A compressed layer's outputs."""
        return self._outputs_of[layer][self._batch]

    def _pass_on(self, is_through: bool) -> None:
        """Has later parts see the outputs of this one, and lets go of what only this one saw if it is through."""
        for batch, outputs in enumerate(self._each(self._outputs)):
            self._held.update(batch, outputs)
            if is_through:
                self._let_go(batch)

    def _let_go(self, batch: int) -> None:
        self._held.delete(batch, list(self._part.consumed_names))

    def _each(self, compute: Callable[[int], _Result]) -> Iterator[_Result]:
        """What is computed from each batch; of the first also without attention, to see whether it needs any."""
        first = compute(0)
        attention = self._model.config._attn_implementation
        if self._outputs_of and _equal(first, self._attending(NO_ATTENTION, compute, 0)):
            attention = NO_ATTENTION
        yield first
        for batch in range(1, len(self._held)):
            yield self._attending(attention, compute, batch)

    def _attending(self, implementation: str, compute: Callable[[int], _Result], batch: int) -> _Result:
        with patch_attr(self._model.config, "_attn_implementation", implementation):
            return compute(batch)

    def _outputs(self, batch: int) -> dict[str, Any]:
        self._batch = batch
        return self._part.forward(self._model, **self._held.fetch(batch, list(self._part.input_names)))


def _summed(layers: Sequence[torch.nn.Module], shown: Iterable[Sequence[torch.Tensor | None]]) -> list[Inputs]:
    weights = [weight_matrix(layer) for layer in layers]
    inputs = [Inputs(weight.shape[1], weight.device) for weight in weights]
    for given in shown:
        for own, seen in zip(inputs, given, strict=True):
            if seen is not None:
                own.add(seen)
    return inputs


def _equal(some: object, others: object) -> bool:
    pairs = zip(tree_leaves(some), tree_leaves(others), strict=True)
    tensors = [(a, b) for a, b in pairs if isinstance(a, torch.Tensor)]
    return bool(tensors) and all(torch.equal(a, b) for a, b in tensors)


@contextmanager
def _hooks(layers: Iterable[torch.nn.Module], see: Callable[..., None]) -> Iterator[None]:
    """Has `see` called with a layer and its arguments before each of its calls."""
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(see).remove)
        yield

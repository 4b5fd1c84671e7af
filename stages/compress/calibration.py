"""Shows a model's layers their inputs, and has each compressed before those after it see its outputs.

llm-compressor traces the model into parts of a block each, and keeps on the CPU what passes between them; one part at a time
is on the accelerator. Inside a block the order is that of the calls as well (what GPTQ's authors call true sequential): the
projection behind the attention is compressed for what the compressed queries, keys and values let through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.offload import disable_offloading, remove_dispatch, set_onload_device
from compressed_tensors.utils import patch_attr
from llmcompressor.args.dataset_arguments import DatasetArguments
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential.helpers import SequentialTracer, Subgraph, trace_subgraphs
from llmcompressor.utils.helpers import calibration_forward_context
from llmcompressor.utils.pytorch.module import infer_sequential_targets
from torch.fx import _symbolic_trace

from llmrepair.models.loading import weight_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_SHARE_HELD = 0.25


class Inputs:
    """What is known of the inputs that several layers share."""

    def __init__(self, columns: int, device: torch.device):
        self._sum = torch.zeros(columns, columns, device=device)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Adds inputs [..., columns]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        if flat.is_cuda and flat.dtype.itemsize == 2:  # products of 16 bits are exact in the float32 sum
            self._sum = torch.addmm(self._sum, flat.T, flat, out_dtype=torch.float32)
        else:
            flat = flat.float()
            self._sum.addmm_(flat.T, flat)
        self.tokens += len(flat)

    @cached_property
    def hessian(self) -> torch.Tensor:
        """The mean of x x^T over the tokens, float32 [columns, columns]; zeros where no token came."""
        return self._sum.div_(max(self.tokens, 1))


Visit = Callable[[list[str], Inputs], None]
"""Called with the names of layers that share their inputs, once all of these are in. May change the layers' weights."""


def calibrate(
    model: PreTrainedModel,
    layers: Mapping[str, torch.nn.Module],
    rows: torch.Tensor,
    batch_size: int,
    device: torch.device,
    visit: Visit,
) -> None:
    """Visits all `layers`, in the order in which the model uses them.

    Args:
        model: on the CPU, or on `device` as a whole.
        rows: token ids [N, T], of which `batch_size` rows pass a block at a time.
    """
    batches = [{"input_ids": batch.to(device)} for batch in rows.split(batch_size)]
    attention = _attention_of_blocks(model, device)
    names = {layer: name for name, layer in layers.items()}
    set_onload_device(model, device)
    with tracing():
        blocks = infer_sequential_targets(model)
        parts = trace_subgraphs(model, batches[0], blocks, DatasetArguments().tracing_ignore)  # type: ignore[arg-type]
        held = IntermediatesCache(offload_device=_where_to_hold(model, rows, device))
        for batch in batches:
            held.append(batch)
        with calibration_forward_context(model):
            for traced in parts:
                is_first = traced is parts[0]  # it makes the mask
                attend = patch_attr(model.config, "_attn_implementation", "eager" if is_first else attention)
                with disable_offloading(), attend:  # of this part, until it is through
                    part = _Part(model, traced, held)
                    part.visit(names, visit)
                    if traced is not parts[-1]:
                        part.pass_on()
    remove_dispatch(model)


def _where_to_hold(model: PreTrainedModel, rows: torch.Tensor, device: torch.device) -> torch.device:
    """Where what passes between blocks is kept: on a GPU if it takes little of what is free there."""
    if device.type == "cuda":
        numbers = rows.numel() * (model.config.get_text_config().hidden_size + rows.shape[1])  # hidden states and mask
        if _SHARE_HELD * torch.cuda.mem_get_info(device)[0] > numbers * model.dtype.itemsize:
            return device
    return torch.device("cpu")


def _attention_of_blocks(model: PreTrainedModel, device: torch.device) -> str:
    """The attention with which llm-compressor traces, and which always makes a mask; on a GPU, where it would take many times
    as long, PyTorch's own behind that mask."""
    is_fused = device.type == "cuda" and model.config._attn_implementation == "sdpa"
    return "sdpa" if is_fused else "eager"


@contextmanager
def tracing() -> Iterator[None]:
    """llm-compressor's tracing, mended, and without what it would leave behind."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # warns of how llm-compressor calls it
    with (
        patch_attr(_symbolic_trace, "_wrapped_fns_to_patch", dict(_symbolic_trace._wrapped_fns_to_patch)),  # holds the model
        patch_attr(SequentialTracer, "create_arg", _create_argument),
    ):
        yield


def _create_argument(tracer: SequentialTracer, value: Any, create: Callable[..., Any] = SequentialTracer.create_arg) -> Any:
    """The model's config is passed as it is. A copy, as llm-compressor passes, does not say that attention is eager: Mistral
    and Phi-3 would make no mask for it, and look ahead."""
    if value is tracer.root.config:
        return tracer.create_node("get_attr", "config", (), {})
    return create(tracer, value)


class _Stop(BaseException):
    """Ends a forward pass that showed what it was for. Not an `Exception`: llm-compressor makes other ones of those."""


class _Part:
    """A part of a model, and what the parts before it pass on to it and to later ones."""

    def __init__(self, model: PreTrainedModel, part: Subgraph, held: IntermediatesCache):
        self._model, self._part, self._held = model, part, held

    def visit(self, names: Mapping[torch.nn.Module, str], visit: Visit) -> None:
        for group in self._groups([layer for layer in self._part.submodules(self._model) if layer in names]):
            visit([names[layer] for layer in group], self._inputs_of(group[0]))

    def _groups(self, layers: Sequence[torch.nn.Module]) -> list[list[torch.nn.Module]]:
        """Layers in the order in which the first batch calls them, those together that are called in a row with one tensor
        (queries, keys, values); then those that it does not call."""
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
        called = {layer for group in groups for layer in group}
        return groups + [[layer] for layer in layers if layer not in called]

    def _inputs_of(self, layer: torch.nn.Module) -> Inputs:
        weight = weight_matrix(layer)
        inputs = Inputs(weight.shape[1], weight.device)

        def see(layer: torch.nn.Module, arguments: Sequence[torch.Tensor]) -> None:
            inputs.add(arguments[0])
            raise _Stop

        with _hooks([layer], see):
            for batch in range(len(self._held)):
                with suppress(_Stop):
                    self._outputs(batch)
        return inputs

    def pass_on(self) -> None:
        """Has later parts see the outputs of this one, and lets go of what only this one saw."""
        for batch in range(len(self._held)):
            self._held.update(batch, self._outputs(batch))
            self._held.delete(batch, list(self._part.consumed_names))

    def _outputs(self, batch: int) -> dict[str, Any]:
        return self._part.forward(self._model, **self._held.fetch(batch, list(self._part.input_names)))


@contextmanager
def _hooks(layers: Iterable[torch.nn.Module], see: Callable[..., None]) -> Iterator[None]:
    """Has `see` called with a layer and its arguments before each of its calls."""
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(see).remove)
        yield

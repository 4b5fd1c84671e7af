"""Shows a model's layers their inputs, block by block, and has each block compressed before the next one sees its outputs.

The order of events is llm-compressor's sequential pipeline: it traces the model into blocks, keeps on the CPU what passes
between them, and brings to the accelerator one block at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.offload import remove_dispatch
from compressed_tensors.utils import patch_attr
from llmcompressor.args.dataset_arguments import DatasetArguments
from llmcompressor.core import create_session
from llmcompressor.modifiers import Modifier
from llmcompressor.pipelines.sequential import pipeline
from pydantic import PrivateAttr
from torch.fx import _symbolic_trace
from torch.utils.data import DataLoader

from llmrepair.models.loading import weight_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Inputs:
    """What is known of the inputs that several layers share."""

    def __init__(self, columns: int, device: torch.device):
        self._sum = torch.zeros(columns, columns, device=device)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Adds inputs [..., columns]."""
        flat = inputs.reshape(-1, inputs.shape[-1]).float()
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
    run_sequentially(model, [_Watcher(layers, visit)], rows, batch_size, device)


def run_sequentially(
    model: PreTrainedModel, recipe: list[Modifier], rows: torch.Tensor, batch_size: int, device: torch.device
) -> None:
    """llm-compressor's sequential pipeline, without the globals and the saving that its `oneshot` puts around it."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # warns of how llm-compressor calls it
    loader: DataLoader[Any] = DataLoader([{"input_ids": row} for row in rows], batch_size=batch_size)  # type: ignore[arg-type]
    with (
        create_session() as session,
        patch_attr(pipeline, "get_main_device", lambda: device),  # it would take any GPU that it sees
        patch_attr(pipeline, "tqdm", lambda batches, **settings: batches),  # bars of its own, beside ours
        patch_attr(_symbolic_trace, "_wrapped_fns_to_patch", dict(_symbolic_trace._wrapped_fns_to_patch)),  # holds the model
    ):
        session.initialize(model=model, recipe=recipe, calib_data=loader, start=-1)  # type: ignore[arg-type]
        pipeline.SequentialPipeline()(model, loader, DatasetArguments())
        session.finalize()
    remove_dispatch(model)


class _Watcher(Modifier):
    """llm-compressor's hooks: sums up the inputs of a block's layers, then has them visited."""

    requires_calibration_data: bool = True
    _layers: dict[torch.nn.Module, str] = PrivateAttr()
    _visit: Visit = PrivateAttr()
    _inputs: dict[torch.nn.Module, Inputs] = PrivateAttr(default_factory=dict)
    _first: dict[Inputs, torch.nn.Module] = PrivateAttr(default_factory=dict)
    _latest: tuple[torch.Tensor, Inputs] | None = PrivateAttr(None)

    def __init__(self, layers: Mapping[str, torch.nn.Module], visit: Visit):
        super().__init__()
        self._layers = {layer: name for name, layer in layers.items()}
        self._visit = visit

    def on_initialize(self, state: Any, **kwargs: Any) -> bool:
        return True

    def on_calibration_start(self, state: Any, event: Any, **kwargs: Any) -> None:
        for layer in self._layers:
            self.register_hook(layer, self._see, "forward")  # type: ignore[arg-type]

    def _see(self, layer: torch.nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """Layers that are called in a row with one tensor (queries, keys, values) share their `Inputs`."""
        tensor = arguments[0]
        if layer not in self._inputs:
            shared = self._latest is not None and self._latest[0] is tensor
            self._inputs[layer] = self._latest[1] if shared and self._latest else Inputs(tensor.shape[-1], tensor.device)
        inputs = self._inputs[layer]
        if self._first.setdefault(inputs, layer) is layer:
            inputs.add(tensor)
        self._latest = tensor, inputs

    def on_sequential_epoch_end(self, state: Any, event: Any, modules: Iterable[torch.nn.Module], **kwargs: Any) -> None:
        self._latest = None
        together: dict[Inputs, list[str]] = {}
        for layer in modules:
            if layer in self._layers:
                weight = weight_matrix(layer)
                inputs = self._inputs.pop(layer, None) or Inputs(weight.shape[1], weight.device)
                together.setdefault(inputs, []).append(self._layers[layer])
        self._first.clear()
        while together:  # what was visited is let go
            inputs = next(iter(together))
            self._visit(together.pop(inputs), inputs)

    def on_calibration_end(self, state: Any, event: Any, **kwargs: Any) -> None:
        self.remove_hooks()

    def on_finalize(self, state: Any, **kwargs: Any) -> bool:
        return True

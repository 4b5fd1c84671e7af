"""Compresses layers while they are shown their inputs, and keeps what is to be told of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.offload import update_offload_parameter
from transformers.pytorch_utils import Conv1D

from llmrepair.models.loading import weight_matrix
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.progress import Bar, Reporter
from llmrepair.stages.checkpoints.grid import Quantised
from llmrepair.stages.compress.layer import CompressedLayer, LayerRecipe, compress_layers, output_error
from llmrepair.stages.compress.solver import NotPositiveDefinite

if TYPE_CHECKING:
    from llmrepair.models.second_moment import Inputs


class Compressor:
    """Compresses layers in place.

    Args:
        layers: all that will be visited, by name.

    Attributes:
        told: of each layer its name, output error, damping, tokens, whether they are too few, and seconds.
        quantised: the layers that were rounded, as codes.
    """

    def __init__(self, layers: Mapping[str, torch.nn.Module], recipe: LayerRecipe, reporter: Reporter):
        self.told: list[dict[str, Any]] = []
        self.quantised: dict[str, Quantised] = {}
        self._layers, self._recipe, self._reporter = layers, recipe, reporter
        self._bar: Bar | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Shows how far it is, until it is left."""
        with self._reporter.bar("compressing layers", len(self._layers)) as self._bar:
            yield

    @torch.no_grad()
    def visit(self, names: list[str], inputs: Inputs) -> None:
        """Compresses layers that share their inputs.

        Raises:
            WorkError: their weights or inputs are not finite.
        """
        clock = time.perf_counter()
        matrices = [weight_matrix(self._layers[name]) for name in names]
        for name, matrix in zip(names, matrices, strict=True):
            if not matrix.isfinite().all():
                message = f"the weights of layer `{name}` are not finite numbers"
                raise WorkError(Problem(message, "the model's file is broken, or made for another --dtype; get it again"))
        known = {"tokens": inputs.tokens, "rank_deficient": inputs.tokens < len(inputs.hessian)}
        try:
            for name, before, result in zip(
                names, matrices, compress_layers(matrices, inputs.hessian, self._recipe), strict=True
            ):
                error = output_error(before, result.weight, inputs.hessian)
                self._replace(name, result)
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                self._tell({"name": name, "output_error": error, "damping": result.damping, **known, "seconds": seconds})
        except NotPositiveDefinite as error:
            message = f"the inputs of layer `{names[0]}` are not finite numbers"
            raise WorkError(Problem(message, "give --dtype float32 or bfloat16, or other text with --calibration")) from error

    def _replace(self, name: str, result: CompressedLayer) -> None:
        layer = self._layers[name]
        update_offload_parameter(layer, "weight", result.weight.T if isinstance(layer, Conv1D) else result.weight)
        if result.quantised:
            self.quantised[name] = result.quantised.to(torch.device("cpu"))

    def _tell(self, layer: dict[str, Any]) -> None:
        self.told.append(layer)
        note = f"{layer['name']}  error {layer['output_error']:.3g}"
        assert self._bar is not None
        self._bar.advance(1, note)
        damping = "" if layer["damping"] is None else f", damping {layer['damping']:g}"
        self._reporter.log(f"({len(self.told)}/{len(self._layers)}) {note}{damping}, {layer['seconds']:.2f} s")

    def tell_weak_calibration(self) -> None:
        """Says what the calibration text was too small for."""
        unseen = [layer["name"] for layer in self.told if layer["tokens"] == 0]
        deficient = [layer["name"] for layer in self.told if layer["rank_deficient"] and layer["tokens"]]
        damped = [layer["name"] for layer in self.told if (layer["damping"] or 0) > self._recipe.damping]
        if unseen:
            self._say(unseen, "never saw an input: give more --samples or other text")
        if deficient and self._recipe.compensate:
            self._say(deficient, "have more columns than the calibration text has tokens: give more --samples")
        if damped:
            self._say(damped, f"needed more damping than {self._recipe.damping:g}: their weights make up for less")

    def _say(self, names: list[str], what: str) -> None:
        self._reporter.note(f"{len(names)} of {len(self._layers)} layers, such as `{names[0]}`, {what}")

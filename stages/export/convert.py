"""A checkpoint in another format than the one it is stored in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.export.gguf.exported import GGUF, gguf_problem
from llmrepair.stages.export.replaced import stored_model

if TYPE_CHECKING:
    from llmrepair.pipeline.progress import Reporter
    from llmrepair.stages.checkpoints.grid import Quantised
    from llmrepair.stages.export.parts import Parts

_POSSIBLE = {"compressed-tensors": ("gptq", "dense"), "gptq": ("dense",)}


def format_problem(parts: Parts, file_format: str, merge: bool) -> Problem | None:
    """What keeps the model from being exported in a format; None if nothing does."""
    stored = parts.stored_format
    if file_format not in ("compressed-tensors", "gptq", "dense", GGUF):
        return Problem(f"`{file_format}` is no format", "give --format compressed-tensors, gptq, dense or gguf")
    if file_format == GGUF:
        return gguf_problem(parts, merge)
    if file_format == stored:
        return None
    if file_format not in _POSSIBLE.get(stored, ()):
        message = f"`{parts.compressed.name}` is stored in the format {stored}, which is not turned into {file_format}"
        return Problem(message, f"compress the model again with --format {file_format}")
    return _gptq_problem(parts) if file_format == "gptq" else None


def _gptq_problem(parts: Parts) -> Problem | None:
    from llmrepair.models.experts import experts_of
    from llmrepair.models.loading import layer_shapes, meta_model
    from llmrepair.stages.checkpoints.gptq import format_problems, packages_problem

    if (packages := packages_problem()) is not None:
        return packages
    config = parts.compressed.key_document["config"]
    model = meta_model(str(parts.location), None, config["trust_remote_code"])
    if experts_of(model):
        return Problem(f"the gptq format cannot hold the experts of `{parts.compressed.name}`", "give --format dense")
    return next(iter(format_problems(layer_shapes(model), config["group_size"])), None)


def write_converted(parts: Parts, folder: Path, file_format: str, reporter: Reporter) -> float:
    """Writes the weights in another format, loads them in a fresh process, compares, and returns their bits per weight.

    The GPTQ format's scales are float16: where they were stored in more bits they are rounded, and what that changes is said.

    Raises:
        WorkError: the new checkpoint does not give the logits of the model that it was written from.
    """
    import torch

    from llmrepair.models.loading import compressible_layers, weight_matrix
    from llmrepair.stages.checkpoints.packed import read_packed
    from llmrepair.stages.checkpoints.reload import reload_in_fresh_process, some_logits
    from llmrepair.stages.checkpoints.save import save_checkpoint

    config = parts.compressed.key_document["config"]
    dtype, trust = config["dtype"], config["trust_remote_code"]
    model = stored_model(parts, dtype)
    rows = torch.arange(64)[None] % model.config.get_text_config().vocab_size
    stored = some_logits(model, rows)
    layers: dict[str, Quantised] = {}
    if file_format == "gptq":
        layers = {name: replace(layer, scale=layer.scale.half()) for name, layer in read_packed(parts.location).items()}
        modules = compressible_layers(model)
        for name, layer in layers.items():
            weight_matrix(modules[name]).copy_(layer.dequantise())
    save_checkpoint(model, layers, file_format, folder)
    written = some_logits(model, rows)
    with TemporaryDirectory() as work:
        reloaded = reload_in_fresh_process(folder, dtype, model.device, trust, rows, written, Path(work))
    difference = max(reloaded.difference, float((written - stored).abs().max()))
    reporter.say(
        f"logits in the format {file_format} differ by up to {difference:.2g} (the largest is {stored.abs().max():.2g})"
    )
    return float(reloaded.measures["bits_per_weight"])

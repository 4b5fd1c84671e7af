"""A checkpoint in another format than the one it is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.export.merge import merge_problem, merged_model

if TYPE_CHECKING:
    from llmrepair.pipeline.progress import Reporter
    from llmrepair.stages.checkpoints.grid import Quantised
    from llmrepair.stages.export.parts import Parts

GGUF = "gguf"
GGUF_FILE = "model.gguf"
GGUF_BITS = {"Q4_0": 4, "Q8_0": 8}
"""Of a code in each kind of block."""
_POSSIBLE = {"compressed-tensors": ("gptq", "dense"), "gptq": ("dense",)}


def stored_format(parts: Parts) -> str:
    """compressed-tensors, gptq, or dense for a model whose weights are plain numbers."""
    return str(parts.config.get("quantization_config", {}).get("quant_method", "dense"))


def format_problem(parts: Parts, file_format: str, merge: bool) -> Problem | None:
    """What keeps the model from being exported in a format; None if nothing does."""
    stored = stored_format(parts)
    if file_format not in ("compressed-tensors", "gptq", "dense", GGUF):
        return Problem(f"`{file_format}` is no format", "give --format compressed-tensors, gptq, dense or gguf")
    if file_format == GGUF:
        return _repair_problem(parts, merge) or _gguf_problem(parts)
    if file_format == stored:
        return None
    if file_format not in _POSSIBLE.get(stored, ()):
        message = f"`{parts.compressed.name}` is stored in the format {stored}, which is not turned into {file_format}"
        return Problem(message, f"compress the model again with --format {file_format}")
    return _gptq_problem(parts) if file_format == "gptq" else None


def _gptq_problem(parts: Parts) -> Problem | None:
    from llmrepair.models.loading import layer_shapes, meta_model
    from llmrepair.stages.checkpoints.gptq import format_problems, packages_problem

    if (packages := packages_problem()) is not None:
        return packages
    config = parts.compressed.key_document["config"]
    model = meta_model(str(_location(parts)), None, config["trust_remote_code"])
    return next(iter(format_problems(layer_shapes(model), config["group_size"])), None)


def _repair_problem(parts: Parts, merge: bool) -> Problem | None:
    """Says so of a repair beside the weights: a GGUF file has no place for it."""
    if merge or not parts.adapters:
        return None
    is_merged = parts.repair.files.can_merge and merge_problem(parts) is None
    without = f"export it without its repair: `llmrepair export {parts.compressed.name}`"
    message = f"a GGUF file has no place for the {parts.repair.title} of `{parts.exported.name}` beside its weights"
    return Problem(message, "merge it into them with --merge" if is_merged else without)


def _gguf_problem(parts: Parts) -> Problem | None:
    from llmrepair.models.loading import load_tokenizer, meta_model
    from llmrepair.stages.export.gguf.families import family_problem
    from llmrepair.stages.export.gguf.vocabulary import UnheldVocabularyError, vocabulary_fields

    location, trust = str(_location(parts)), parts.compressed.key_document["config"]["trust_remote_code"]
    config = meta_model(location, None, trust).config
    problem = family_problem(config)
    if problem is None:
        try:
            vocabulary_fields(load_tokenizer(location, None, trust), config.vocab_size)
        except UnheldVocabularyError as error:
            problem = str(error)
    if problem is None:
        return None
    return Problem(f"`{parts.compressed.name}` cannot be written as a GGUF file: {problem}", "leave --format out")


def write_gguf(parts: Parts, folder: Path, merge: bool, about: Mapping[str, str], reporter: Reporter) -> dict[str, Any]:
    """Writes the model with its tokenizer as one file, and returns what there is to tell of it: see `write_file`.

    Codes and scales of packed weights are taken as they are, where the file's blocks hold them.
    """
    import torch

    from llmrepair.models.loading import load_model, load_tokenizer
    from llmrepair.stages.checkpoints.packed import read_packed
    from llmrepair.stages.export.gguf.vocabulary import vocabulary_fields
    from llmrepair.stages.export.gguf.write import write_file

    location, trust = _location(parts), parts.compressed.key_document["config"]["trust_remote_code"]
    model = merged_model(parts) if merge else load_model(str(location), None, "float32", torch.device("cpu"), trust)
    layers = read_packed(location) if stored_format(parts) == "compressed-tensors" else {}
    vocabulary = vocabulary_fields(load_tokenizer(str(location), None, trust), model.config.vocab_size)
    written = write_file(model, layers, {**about, **vocabulary}, folder / GGUF_FILE)
    reporter.say(gguf_text(written))
    return {"file": GGUF_FILE, **written}


def gguf_text(written: Mapping[str, Any]) -> str:
    """What became of the weights in a GGUF file."""
    coded = {kind: count for kind, count in written["tensors"].items() if kind in GGUF_BITS}
    layers = " and ".join(f"{count} layers in {kind}" for kind, count in coded.items())
    text = f"{layers} code by code, scales rounded to float16 by up to {written['scale_rounding']:.2%}; " if coded else ""
    numbers = f"{written['tensors'].get('F16', 0)} matrices in float16"
    return f"{text}{numbers}; logits differ by {written['logit_difference']:.2%} (root mean square)"


def write_converted(parts: Parts, folder: Path, file_format: str, reporter: Reporter) -> float:
    """Writes the weights in another format, loads them in a fresh process, compares, and returns their bits per weight.

    The GPTQ format's scales are float16: where they were stored in more bits they are rounded, and what that changes is said.

    Raises:
        WorkError: the new checkpoint does not give the logits of the model that it was written from.
    """
    import torch

    from llmrepair.models.loading import compressible_layers, load_model, weight_matrix
    from llmrepair.stages.checkpoints.packed import read_packed
    from llmrepair.stages.checkpoints.reload import reload_in_fresh_process, some_logits
    from llmrepair.stages.checkpoints.save import save_checkpoint

    config = parts.compressed.key_document["config"]
    dtype, trust = config["dtype"], config["trust_remote_code"]
    model = load_model(str(_location(parts)), None, dtype, torch.device("cpu"), trust)
    rows = torch.arange(64)[None] % model.config.get_text_config().vocab_size
    stored = some_logits(model, rows)
    layers: dict[str, Quantised] = {}
    if file_format == "gptq":
        layers = {name: replace(layer, scale=layer.scale.half()) for name, layer in read_packed(_location(parts)).items()}
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


def _location(parts: Parts) -> Path:
    return parts.checkpoint["config.json"].parent

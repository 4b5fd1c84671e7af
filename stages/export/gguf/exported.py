"""What the store holds as a GGUF file: what keeps it from being one, how it is written, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.export.merge import merge_problem, merged_model
from llmrepair.stages.export.replaced import stored_model

if TYPE_CHECKING:
    from llmrepair.pipeline.progress import Reporter
    from llmrepair.stages.export.parts import Parts

GGUF = "gguf"
GGUF_FILE = "model.gguf"
GGUF_BITS = {"Q4_0": 4, "Q8_0": 8}
"""Of a code in each kind of block."""


def gguf_problem(parts: Parts, merge: bool) -> Problem | None:
    return _repair_problem(parts, merge) or _model_problem(parts)


def _repair_problem(parts: Parts, merge: bool) -> Problem | None:
    """Says so of a repair beside the weights: a GGUF file has no place for it."""
    if merge or not parts.adapters:
        return None
    is_merged = parts.repair.files.can_merge and merge_problem(parts) is None
    without = f"export it without its repair: `llmrepair export {parts.compressed.name}`"
    message = f"a GGUF file has no place for the {parts.repair.title} of `{parts.exported.name}` beside its weights"
    return Problem(message, "merge it into them with --merge" if is_merged else without)


def _model_problem(parts: Parts) -> Problem | None:
    """Says so of a family or a tokenizer that the format does not hold."""
    from llmrepair.models.loading import load_tokenizer, meta_model
    from llmrepair.stages.export.gguf.families import family_problem
    from llmrepair.stages.export.gguf.vocabulary import UnheldVocabularyError, vocabulary_fields

    location, trust = str(parts.location), parts.compressed.key_document["config"]["trust_remote_code"]
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
    from llmrepair.models.loading import load_tokenizer
    from llmrepair.stages.checkpoints.packed import read_packed
    from llmrepair.stages.export.gguf.vocabulary import vocabulary_fields
    from llmrepair.stages.export.gguf.write import write_file

    location, trust = parts.location, parts.compressed.key_document["config"]["trust_remote_code"]
    model = merged_model(parts) if merge else stored_model(parts, "float32")
    layers = read_packed(location) if parts.stored_format == "compressed-tensors" else {}
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

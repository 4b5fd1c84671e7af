"""What only a look into a GGUF file can tell; none of its weights are read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.reading import reading
from llmrepair.pipeline.stage import Needs
from llmrepair.stages.sources.gguf.header import BrokenFileError, Header, read_header

_SPELLED = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gpt-oss": "gpt_oss", "minimax-m2": "minimax_m2"}
"""Architectures that transformers calls otherwise."""
_LIBRARIES_BYTES = 1 << 30
_NUMBER_BYTES = 4
FOLDER = "give the model's own folder, or its Hub id"


def problems_with_file(model: str, path: Path) -> list[Problem]:
    try:
        header = read_header(path)
    except BrokenFileError as error:
        return [Problem(f"`{model}` cannot be read: {error}", "copy or download it again", "model")]
    from llmrepair.stages.sources.gguf.vocabulary import tokenizer_of, vocabulary_problem

    found = _part_problem(header), _family_problem(header), vocabulary_problem(header.fields)
    problems = [Problem(f"`{model}` cannot be read: {problem}", FOLDER, "model") for problem in found if problem is not None]
    if not problems:
        with reading(f"the vocabulary of `{model}`", "copy or download it again", "model"):
            tokenizer_of(header.fields)  # its merges may name tokens that there are none of
    return problems


def needed(path: Path) -> Needs:
    """By rule of thumb: the libraries, and the weights twice, as they are read and as a model."""
    size = _NUMBER_BYTES * read_header(path).weights
    return Needs(host=_LIBRARIES_BYTES + 2 * size, disk=size, is_rough=True)


def settings_of(path: Path) -> dict[str, Any]:
    """What is asked of a file before it is a folder with a config.json."""
    status = path.stat()
    return _settings_of(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _settings_of(path: Path, size: int, modified: int) -> dict[str, Any]:
    """Once for a plan of many cells."""
    header = read_header(path)
    return {"max_position_embeddings": header.fields.get(f"{header.architecture}.context_length")}


def row_lengths(path: Path) -> set[int]:
    """Of the matrices in the blocks."""
    shapes = read_header(path).shapes
    return {shape[-1] for name, shape in shapes.items() if name.startswith("blk.") and len(shape) > 1}


def _part_problem(header: Header) -> str | None:
    parts = header.fields.get("split.count", 1)
    return f"it is one of {parts} parts of a model" if parts > 1 else None


def _family_problem(header: Header) -> str | None:
    """Says so where transformers would make another model of it, or none."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    family = header.architecture
    if _SPELLED.get(family, family) not in GGUF_SUPPORTED_ARCHITECTURES:
        return f"transformers knows no GGUF file of the family `{family}`"
    scaling = header.fields.get(f"{family}.rope.scaling.type", "none")
    if "rope_freqs.weight" in header.shapes or (scaling != "none" and family != "gpt-oss"):
        return "its positions are scaled, which transformers does not take over from a GGUF file"
    return None

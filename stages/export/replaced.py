"""An export some of whose tensors a repair has replaced: no others change, so packed weights keep their codes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.export.parts import Parts


def replaced_problem(parts: Parts) -> Problem | None:
    """Says so of a tensor that the checkpoint's files do not hold under its name; None if they hold all, or none is meant."""
    if parts.replaced is None:
        return None
    held = {name for path in weight_files(parts.location) for name in _names(path)}
    missing = next((name for name in _names(parts.replaced) if _in_files(name, held) is None), None)
    if missing is None:
        return None
    message = f"the files of `{parts.compressed.name}` have no tensor `{missing}`, which `{parts.exported.name}` replaces"
    return Problem(message, f'load it with llmrepair: `llmrepair.load("{parts.exported.name}")`')


def write_replaced(parts: Parts, folder: Path) -> None:
    """Writes those weight files into `folder` that hold a replaced tensor. Their other tensors stay as they are."""
    from safetensors.torch import load_file, save_file

    assert parts.replaced is not None
    tuned = load_file(parts.replaced)
    for path in weight_files(parts.location):
        tensors = load_file(path)
        found = {_in_files(name, tensors): value for name, value in tuned.items()}
        here = {name: value for name, value in found.items() if name is not None}
        if here:
            save_file(tensors | here, folder / path.relative_to(parts.location), metadata=_metadata(path))


def stored_model(parts: Parts, dtype: str) -> PreTrainedModel:
    """The checkpoint's model on the CPU, with what was replaced."""
    import torch
    from safetensors.torch import load_file

    from llmrepair.models.loading import load_model
    from llmrepair.models.norms import replace_parameters

    trust = parts.compressed.key_document["config"]["trust_remote_code"]
    model = load_model(str(parts.location), None, dtype, torch.device("cpu"), trust)
    return replace_parameters(model, load_file(parts.replaced)) if parts.replaced is not None else model


def _in_files(name: str, held: Iterable[str]) -> str | None:
    """What a parameter is called in files, which may leave the name of the model's body out, as GPT-2's on the Hub do."""
    return next((each for each in (name, name.partition(".")[2]) if each in held), None)


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _metadata(path: Path) -> dict[str, str] | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        found: dict[str, str] | None = file.metadata()
    return found

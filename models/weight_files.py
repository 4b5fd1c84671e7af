"""Which of a folder's files a model's weights are read from. A folder may hold others: the same weights in another layout
(`consolidated.safetensors`), or in another precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_WEIGHTS, _INDEX = "model.safetensors", ".safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """As transformers chooses them: the file that the config names, or that of the usual name, or else what an index lists;
    whether or not they are there.

    Raises:
        ValueError: the config or the index cannot be read, or names a file outside of the folder.
    """
    named = _object(folder / "config.json").get("transformers_weights")
    first = _inside(folder, named or _WEIGHTS, "config.json")
    index = first if named is not None else folder / f"model{_INDEX}"
    if index.name.endswith(_INDEX) and index.is_file() and (named is not None or not first.is_file()):
        return sorted({_inside(folder, name, index.name) for name in _listed(index).values()})
    return [first] if first.is_file() else []


def _listed(index: Path) -> dict[str, Any]:
    """Name of a tensor -> that of its file."""
    listed = _object(index).get("weight_map", {})
    if not isinstance(listed, dict):
        raise ValueError(f"`weight_map` of {index.name} is no JSON object")
    return listed


def _inside(folder: Path, name: Any, told_by: str) -> Path:
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{told_by} names `{name}`, which is no file of this folder")
    return folder / name


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value

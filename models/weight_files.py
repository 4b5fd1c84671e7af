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
        ValueError: the config or the index cannot be read.
    """
    named = _object(folder / "config.json").get("transformers_weights")
    first = folder / str(named or _WEIGHTS)
    index = first if named is not None else folder / f"model{_INDEX}"
    if index.name.endswith(_INDEX) and index.is_file() and (named is not None or not first.is_file()):
        return sorted({folder / str(name) for name in _object(index).get("weight_map", {}).values()})
    return [first] if first.is_file() else []


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value

"""What is taken of options that are not given, where the model is a user's own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import RequestError
from llmrepair.stages.sources.hub import hub_commit
from llmrepair.stages.sources.lab import lab_folder
from llmrepair.stages.sources.models import ModelSource, is_gguf, load_config, model_folder

DEFAULT_TEXT = "wikitext2"
PRECISIONS = ("float32", "bfloat16", "float16")
_ROW, _TUNING_ROW = 512, 256
_GGUF_SETTINGS = "llmrepair.stages.sources.gguf.check"


def own_defaults(model: str, revision: str | None) -> dict[str, Any]:
    """Text from the Hub, rows as long as the model takes them, and the precision that it was saved in.

    Nothing of an embedded model, whose defaults are those of the options.
    """
    if lab_folder(model) is not None:
        return {}
    settings = _settings(model, revision)
    longest = settings.get("max_position_embeddings") or settings.get("n_positions") or 2 * _ROW
    saved_in = settings.get("dtype") or settings.get("torch_dtype")
    return {
        "calibration": DEFAULT_TEXT,
        "tuning_data": DEFAULT_TEXT,
        "seq_len": min(_ROW, longest),
        "tuning_seq_len": min(_TUNING_ROW, longest // 2),
        "dtype": saved_in if saved_in in PRECISIONS else PRECISIONS[0],
    }


def fitting_group_size(columns: Collection[int]) -> int:
    """128, or the largest power of two below, that divides rows of all these lengths; -1, a whole row, where that is tiny."""
    size = math.gcd(128, *columns)
    return size if size >= 8 else -1


def own_group_size(model: str, revision: str | None, trust_remote_code: bool) -> int:
    """What `--group-size auto` stands for; a whole row of what is no model, which its stage tells."""
    from llmrepair.models.loading import layer_shapes, meta_model

    folder = model_folder(model)
    try:
        if is_gguf(model):
            return fitting_group_size(importlib.import_module(_GGUF_SETTINGS).row_lengths(Path(model).expanduser()))
        where = (str(folder), None) if folder is not None else (model, hub_commit(model, revision, "model"))
        return fitting_group_size({columns for _, columns in layer_shapes(meta_model(*where, trust_remote_code)).values()})
    except (RequestError, OSError, ValueError):
        return -1


def _settings(model: str, revision: str | None) -> Mapping[str, Any]:
    """The model's config.json, or what a GGUF file says of it; nothing where there is none, which its stage tells."""
    folder = model_folder(model)
    try:
        if is_gguf(model):
            settings: Mapping[str, Any] = importlib.import_module(_GGUF_SETTINGS).settings_of(Path(model).expanduser())
            return settings
        if folder is not None:
            return load_config(ModelSource(str(folder), None, {}))
        return load_config(ModelSource(model, hub_commit(model, revision, "model"), {}))
    except (RequestError, OSError, ValueError):
        return {}

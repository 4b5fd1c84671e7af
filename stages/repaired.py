"""A repaired model from what the store or an export holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.models.answers import AnswerFile
from llmrepair.models.loading import load_model, pick_device
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import FixedSelector
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import Store
from llmrepair.stages.evaluate import Evaluate, EvaluateConfig
from llmrepair.stages.evaluate.labels import placing
from llmrepair.stages.evaluate.repair import put_in_place, repair_folder
from llmrepair.stages.export import find_parts
from llmrepair.stages.export.files import FACTS_FILE
from llmrepair.stages.export.parts import ONE_ADAPTER
from llmrepair.stages.graph import validated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RECOVERIES = {"pool": "idp"}


@dataclass(frozen=True)
class Found:
    """Where a model lies, and its repair.

    Attributes:
        checkpoint: folder of the compressed model.
        dtype: in which it was compressed.
        repair: folder of the adapter or of the pool; None for none.
        options: of the evaluation that it was taken from.
        seed: with which the repair was tuned.
    """

    checkpoint: Path
    dtype: str
    repair: Path | None
    options: dict[str, Any]
    seed: int


def load_repaired(
    source: str, runs: Path, device: str, trust_remote_code: bool, options: Mapping[str, Any]
) -> PreTrainedModel | PromptedModel:
    """See `llmrepair.load`."""
    found = in_export(Path(source)) if (Path(source) / FACTS_FILE).is_file() else in_store(source, runs)
    (config,) = validated({**found.options, **options}, EvaluateConfig)
    _check(config, found)
    model = load_model(str(found.checkpoint), None, found.dtype, pick_device(device), trust_remote_code)
    if found.repair is None:
        return model
    repair = put_in_place(
        model, config, found.repair, found.seed, None, lambda cache: Scorer(model, cache, None, AnswerFile(None)).score
    )
    if repair.pool is None:
        return repair.model
    return PromptedModel(model, repair.cache, repair.selector or FixedSelector(0))


def in_store(key: str, runs: Path) -> Found:
    """What an artifact leads to.

    Raises:
        RequestError: there is no such artifact, or it is no model.
        WorkError: it, or what it was made from, is damaged.
    """
    if not runs.is_dir():
        message = f"`{key}` is no folder of an export, and there is no folder `{runs}` in which it could be a key"
        raise RequestError(Problem(message, "say where artifacts lie with `runs`"))
    parts = find_parts(Runner(Store(runs), Runtime.model_validate({}), Reporter(quiet=True)), key)
    options = {"recovery": _RECOVERIES.get(parts.recovery, parts.recovery)}
    if parts.exported.stage == Evaluate.name:
        config = parts.exported.key_document["config"]
        options = {"recovery": config["recovery"], **placing(config)}
    return Found(
        checkpoint=parts.checkpoint["config.json"].parent,
        dtype=parts.compressed.key_document["config"]["dtype"],
        repair=repair_folder(parts.repair) if parts.repair is not None else None,
        options=options,
        seed=parts.repair.key_document["config"]["seed"] if parts.repair is not None else 0,
    )


def in_export(folder: Path) -> Found:
    """What a folder of `llmrepair export` holds."""
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    repair, recovery = facts["repair"], facts["recovery"]
    found = Found(folder, facts["compression"]["settings"]["dtype"], None, {"recovery": "none"}, 0)
    if repair is None or facts["merged"]:
        return found
    placed = {} if recovery == "prompt" else repair["placing"]  # the one that is there is the one that was chosen
    options = {"recovery": _RECOVERIES.get(recovery, recovery), **placed}
    where = folder / (recovery if recovery in ONE_ADAPTER else "prompts")
    return Found(folder, found.dtype, where, options, repair["settings"]["seed"])


def _check(config: EvaluateConfig, found: Found) -> None:
    """Raises a RequestError for what cannot be loaded."""
    if config.recovery in ("hard", "icl"):
        hint = "load the compressed model, and put the text in front of its inputs"
        raise RequestError(Problem(f"recovery `{config.recovery}` is a text and no part of a model", hint))
    if config.select == "oracle":
        raise RequestError(Problem("an oracle chooses by answers, which no input has", "give another way with `select`"))
    has = found.options["recovery"]
    if config.recovery != has and {config.recovery, has} != {"prompt", "idp"}:  # a pool is used in either way
        raise RequestError(Problem(f"what is loaded has recovery `{has}`, not `{config.recovery}`", "leave `recovery` out"))

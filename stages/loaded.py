"""A repaired model from what the store or an export holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple

from llmrepair.models.answers import AnswerFile
from llmrepair.models.loading import load_model, load_tokenizer, pick_device
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import DocumentSelector, FixedSelector
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.reading import read_object, reading
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import DIGESTS, Store
from llmrepair.stages.evaluate.stage import EvaluateConfig
from llmrepair.stages.export.files import FACTS_FILE
from llmrepair.stages.export.parts import find_parts
from llmrepair.stages.repairs import REPAIRS, repair_of_form
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.placed import Placing
from llmrepair.stages.request import validated

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Stored:
    """Where a model lies, and its repair.

    Attributes:
        checkpoint: folder of the compressed model.
        dtype: in which it was compressed.
        repair: what it has; of a pool the one that takes it where nothing else is said.
        tuned: folder of the adapter or of the pool; None where nothing was tuned.
        measured: folder of what was measured of that, if anything was; None where there can be none.
        options: with which it is put in place.
        seed: with which it was tuned.
    """

    checkpoint: Path
    dtype: str
    repair: Repair
    tuned: Path | None
    options: Mapping[str, Any]
    seed: int
    measured: Path | None = None


class Given(NamedTuple):
    """What `llmrepair.load` is told besides what to load."""

    runs: Path
    device: str
    trust_remote_code: bool
    options: Mapping[str, Any]


def load_repaired(
    source: str, runs: Path, device: str, trust_remote_code: bool, options: Mapping[str, Any]
) -> PreTrainedModel | PromptedModel:
    """See `llmrepair.load`."""
    given = Given(runs, device, trust_remote_code, options)
    if not (Path(source) / FACTS_FILE).is_file():
        return _in_place(in_store(source, runs), given)
    with reading(f"the export `{source}`", EXPORT_AGAIN):
        return _in_place(in_export(Path(source)), given)


def _in_place(stored: Stored, given: Given) -> PreTrainedModel | PromptedModel:
    runs, device, trust_remote_code, options = given
    values = {"recovery": stored.repair.name, **stored.options, **options}
    (config,) = validated(values, EvaluateConfig)
    repair = REPAIRS[config.recovery]
    _check(repair, stored, options)
    placing, runtime = validated({**values, "device": device}, repair.options(), Runtime)
    if repair.measuring is not None and (problem := repair.measuring.problem(placing, stored.measured)) is not None:
        raise RequestError(problem)
    model = load_model(str(stored.checkpoint), None, stored.dtype, pick_device(runtime.device), trust_remote_code)
    placed = repair.place(
        Placing(
            model=model,
            tokenizer=load_tokenizer(str(stored.checkpoint), None, trust_remote_code),
            options=placing,
            tuned=stored.tuned,
            measured=stored.measured,
            seed=stored.seed,
            scoring=lambda cache: Scorer(model, cache, None, AnswerFile(None)).score,
            sources=repair.sources(placing, DigestCache(runs / DIGESTS)),
        )
    )
    if isinstance(placed.selector, DocumentSelector):
        raise RequestError(Problem("an oracle chooses by answers, which no input has", "give another way with `select`"))
    if placed.pool is None:
        return placed.model
    return PromptedModel(model, placed.cache, placed.selector or FixedSelector(0))


def in_store(key: str, runs: Path) -> Stored:
    """What an artifact leads to.

    Raises:
        RequestError: there is no such artifact, or it is no model.
        WorkError: it, or what it was made from, is damaged.
    """
    if not runs.is_dir():
        message = f"`{key}` is no folder of an export, and there is no folder `{runs}` in which it could be a key"
        raise RequestError(Problem(message, "say where artifacts lie with `runs`"))
    parts = find_parts(Runner(Store(runs), Runtime.model_validate({}), Reporter(quiet=True)), key)
    evaluated = parts.exported.key_document["config"].get("recovery")
    repair, tuned = REPAIRS[evaluated] if evaluated is not None else parts.repair, parts.tuned
    return Stored(
        checkpoint=parts.location,
        dtype=parts.compressed.key_document["config"]["dtype"],
        repair=repair,
        tuned=repair.files.stored(tuned.path) if tuned is not None else None,
        options=parts.placing,
        seed=tuned.key_document["config"].get("seed", 0) if tuned is not None else 0,
        measured=parts.measured.path if parts.measured is not None else None,
    )


def in_export(folder: Path) -> Stored:
    """What a folder of `llmrepair export` holds.

    Raises:
        RequestError: its facts are not as they were written; names the field.
    """
    facts = read_object(folder / FACTS_FILE, f"`{folder / FACTS_FILE}`", EXPORT_AGAIN)
    for path, kind in _FACTS.items():
        if not isinstance(_fact(facts, path), kind):
            message = f"`{folder / FACTS_FILE}` has no `{path}`, or not as it was written"
            raise RequestError(Problem(message, EXPORT_AGAIN))
    if "gguf" in facts:
        message = f"`{folder}` holds a GGUF file, which is no folder of a model"
        raise RequestError(Problem(message, f"load the key that it was exported from, `{facts['exported']}`"))
    dtype, tuned, form = facts["compression"]["settings"]["dtype"], facts["repair"], facts["recovery"]
    repair = repair_of_form(form)
    if facts["merged"] or not repair.files.is_loadable:
        return Stored(folder, dtype, REPAIRS["none"], None, {}, 0)
    if tuned is None:
        return Stored(folder, dtype, repair, None, facts.get("placing", {}), 0)
    where, seed = folder / repair.files.exported(form), tuned["settings"]["seed"]
    return Stored(folder, dtype, repair, where, repair.files.placing(facts), seed, measured=where)


def _fact(facts: Mapping[str, Any], path: str) -> Any:
    """A field of a field; None where there is none."""
    found: Any = facts
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


_FACTS: Mapping[str, type | UnionType] = {
    "compression.settings.dtype": str,
    "recovery": str,
    "merged": bool,
    "repair": dict | None,
    "placing": dict | None,
}
"""What is read of an export's facts, whatever its repair."""
EXPORT_AGAIN = "write it again with `llmrepair export`"


def _check(repair: Repair, stored: Stored, given: Mapping[str, Any]) -> None:
    """Raises a RequestError for what cannot be loaded."""
    if unknown := sorted(given.keys() - repair.options().model_fields.keys() - {"recovery"}):
        known = ", ".join(["recovery", *repair.options().model_fields])
        raise RequestError(Problem(f"`{unknown[0]}` is no option of recovery `{repair.name}`", f"it has {known}"))
    if not repair.files.is_loadable:
        hint = "load the compressed model, and put the text in front of its inputs"
        raise RequestError(Problem(f"recovery `{repair.name}` is a text and no part of a model", hint))
    ours, theirs = (each.tuning.name if each.tuning is not None else None for each in (repair, stored.repair))
    has_what_it_takes = ours == theirs if ours is not None else stored.repair.name == "none"  # two repairs may use one pool
    if repair.name != stored.repair.name and not has_what_it_takes:
        message = f"what is loaded has recovery `{stored.repair.name}`, not `{repair.name}`"
        raise RequestError(Problem(message, "leave `recovery` out"))

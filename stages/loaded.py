"""A repaired model from what the store or an export holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple

from llmrepair.models.answers import AnswerFile
from llmrepair.models.asking import Answer, ask
from llmrepair.models.loading import load_model, load_tokenizer, pick_device
from llmrepair.models.prompt_cache import ENSEMBLE
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import FixedSelector
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.reading import read_object, reading
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import DIGESTS, Store
from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig
from llmrepair.stages.export.files import FACTS_FILE
from llmrepair.stages.export.parts import Parts, find_parts, intact
from llmrepair.stages.repairs import REPAIRS, repair_of_form
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.placed import Placed, Placing, positions
from llmrepair.stages.request import validated
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Stored:
    """Where a model lies, and its repair.

    Attributes:
        checkpoint: folder of the compressed model; the Hub id of a dense one that lies there.
        dtype: in which it was compressed.
        repair: what it has; of a pool the one that takes it where nothing else is said.
        tuned: folder of the adapter or of the pool; None where nothing was tuned.
        measured: folder of what was measured of that, if anything was; None where there can be none.
        options: with which it is put in place.
        seed: with which it was tuned.
        revision: commit of a Hub id.
        label: what the weights are called.
    """

    checkpoint: Path | str
    dtype: str
    repair: Repair
    tuned: Path | None
    options: Mapping[str, Any]
    seed: int
    measured: Path | None = None
    revision: str | None = None
    label: str = ""

    def unrepaired(self) -> Stored:
        return replace(self, repair=REPAIRS["none"], tuned=None, measured=None, options={})


class Given(NamedTuple):
    """What is told besides what to load."""

    runs: Path
    device: str
    trust_remote_code: bool
    options: Mapping[str, Any]
    takes_texts: bool = False
    """Whether a repair will do that is a text in front of the inputs, and no part of a model."""
    note: Callable[[str], None] = lambda text: None
    """Says something to the user."""


class InPlace(NamedTuple):
    """A model that was loaded, with its repair."""

    placed: Placed
    tokenizer: PreTrainedTokenizerBase
    repair: str
    """What the repair is called with its options."""


def load_repaired(
    source: str, runs: Path, device: str, trust_remote_code: bool, options: Mapping[str, Any]
) -> PreTrainedModel | PromptedModel:
    """See `llmrepair.load`."""
    given = Given(runs, device, trust_remote_code, options)
    if not is_export(source):
        return _as_model(in_place(in_store(source, runs), given))
    with reading(f"the export `{source}`", EXPORT_AGAIN):
        return _as_model(in_place(in_export(Path(source)), given))


def is_export(source: str) -> bool:
    """Whether it is a folder that `llmrepair export` wrote."""
    return (Path(source) / FACTS_FILE).is_file()


def _as_model(found: InPlace) -> PreTrainedModel | PromptedModel:
    placed = found.placed
    if placed.pool is None:
        return placed.model
    return PromptedModel(placed.model, placed.cache, placed.selector or FixedSelector(0), placed.last)


def in_place(stored: Stored, given: Given) -> InPlace:
    """Loads a model, and puts its repair in place.

    Raises:
        RequestError: an option is wrong, or the repair cannot be put in place without a task.
    """
    values = {"recovery": stored.repair.name, **stored.options, **given.options}
    (config,) = validated(values, EvaluateConfig)
    repair = REPAIRS[config.recovery]
    _check(repair, stored, given)
    placing, runtime = validated({**values, "device": given.device}, repair.options(), Runtime)
    if (problem := answers_problem(repair, placing)) is not None:
        raise RequestError(problem)
    if repair.measuring is not None and (problem := repair.measuring.problem(placing, stored.measured)) is not None:
        raise RequestError(problem)
    source, trust = (str(stored.checkpoint), stored.revision), given.trust_remote_code
    model, tokenizer = load_model(*source, stored.dtype, pick_device(runtime.device), trust), load_tokenizer(*source, trust)
    placed = repair.place(
        Placing(
            model=model,
            tokenizer=tokenizer,
            options=placing,
            tuned=stored.tuned,
            measured=stored.measured,
            seed=stored.seed,
            scoring=lambda cache: Scorer(model, cache, None, AnswerFile(None)).score,
            sources=repair.sources(placing, DigestCache(given.runs / DIGESTS)),
            note=given.note,
        )
    )
    return InPlace(placed, tokenizer, repair.phrase(placing.identity()))


class Answered(NamedTuple):
    """What a model answered."""

    answer: Answer
    repair: str
    """What the model's repair is called with its options."""
    picked: str
    """What was chosen of a pool, in words; empty where nothing was."""


def answered(stored: Stored, given: Given, question: Sequence[int], longest: int) -> Answered:
    """What a stored model answers to a question, which leaves room for it.

    Args:
        question: its tokens.
        longest: most tokens of the answer.
    """
    placed, tokenizer, repair = in_place(stored, given)
    pool, size = (placed.pool.length, placed.pool.size) if placed.pool is not None else (0, 0)
    room = positions(placed.model, tokenizer) - pool - (placed.last is not None) - len(question)
    answer = ask(placed.model, tokenizer, question, min(longest, room), placed.cache, placed.selector, placed.last)
    return Answered(answer, repair, _picked(answer.prompts, size))


def _picked(prompts: Sequence[int], size: int) -> str:
    if not prompts:
        return ""
    if len(prompts) > 1:
        return f"for each token of the question one of the prompts 0 to {size - 1}: {' '.join(map(str, prompts))}"
    return f"all {size} prompts" if prompts[0] == ENSEMBLE else f"prompt {prompts[0]} of {size}, counted from 0"


def in_evaluations(evaluations: Mapping[str, Evaluate], runner: Runner, look: Callable[[Weights], None]) -> dict[str, Stored]:
    """What evaluations ask, by their names; what is missing of it is computed.

    Args:
        look: is shown a model before that, and raises what keeps it from being asked.

    Raises:
        RequestError: with all that is wrong with any of it.
        WorkError: a stage failed.
    """
    inputs = [stage for each in evaluations.values() for stage in each.inputs().values()]
    graph, missing = runner.graph_and_missing(inputs)
    left = runner.check(missing)
    problems = [problem for each in evaluations.values() for problem in _placing_problems(each)]
    if problems:
        raise RequestError(*dict.fromkeys(problems))
    look(next(iter(evaluations.values())).compressed)
    for node in left:
        runner.compute(node)
    names = {id(stage): name for stage, name in zip(inputs, graph.targets, strict=True)}
    return {
        name: _of_evaluation(each, {role: intact(runner, names[id(stage)]) for role, stage in each.inputs().items()})
        for name, each in evaluations.items()
    }


def _placing_problems(stage: Evaluate) -> list[Problem]:
    problem = answers_problem(stage.repair, stage.placing)
    return stage.repair.problems(stage.placing, stage.compressed, stage.tuned) + ([problem] if problem is not None else [])


def _of_evaluation(stage: Evaluate, inputs: Mapping[str, Artifact]) -> Stored:
    checkpoint, revision = stage.compressed.checkpoint(inputs["compressed"])
    tuned, measured = inputs.get("repair"), inputs.get("measured")
    return Stored(
        checkpoint=checkpoint,
        dtype=stage.compressed.config.dtype,
        repair=stage.repair,
        tuned=stage.repair.files.stored(tuned.path) if tuned is not None else None,
        options=stage.placing.model_dump(),
        seed=stage.tuned.config.seed if stage.tuned is not None else 0,
        measured=measured.path if measured is not None else None,
        revision=revision,
        label=stage.compressed.label(),
    )


def compared(source: str, runs: Path, recovery: str | None) -> dict[str, Stored]:
    """What a key or an export leads to, with the repair and without, and the dense model, as far as they are other ones.

    Args:
        recovery: that it is to have; None for its own.

    Raises:
        RequestError: there is no such thing, or the dense model is not what it was.
    """
    if is_export(source):
        stored = in_export(Path(source))
        return _with_and_without(stored, "exported", recovery)
    parts = _parts(source, runs)
    stored = _of_parts(parts)
    dense = replace(stored.unrepaired(), checkpoint=parts.dense_folder, label=parts.compressed.record["tags"]["model"])
    found = _with_and_without(stored, "dense" if parts.is_dense else "compressed", recovery)
    return {"dense": dense, **found}


def _with_and_without(stored: Stored, name: str, recovery: str | None) -> dict[str, Stored]:
    found = {name: stored.unrepaired()}
    return found if (recovery or stored.repair.name) == "none" else {**found, "repaired": stored}


def answers_problem(repair: Repair, options: Any) -> Problem | None:
    """Says so of a repair that chooses by what is right."""
    if not repair.needs_answers(options):
        return None
    return Problem("an oracle chooses by answers, which no input has", "give another way with `select`", "select")


def in_store(key: str, runs: Path) -> Stored:
    """What an artifact leads to.

    Raises:
        RequestError: there is no such artifact, or it is no model.
        WorkError: it, or what it was made from, is damaged.
    """
    return _of_parts(_parts(key, runs))


def _parts(key: str, runs: Path) -> Parts:
    if not runs.is_dir():
        message = f"`{key}` is no folder of an export, and there is no folder `{runs}` in which it could be a key"
        raise RequestError(Problem(message, "say where artifacts lie with `runs`"))
    return find_parts(Runner(Store(runs), Runtime.model_validate({}), Reporter(quiet=True)), key)


def _of_parts(parts: Parts) -> Stored:
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
        label=parts.compressed.label,
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
    where, seed = folder / repair.files.exported(form), tuned["settings"].get("seed", 0)  # low-rank terms draw nothing
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


def _check(repair: Repair, stored: Stored, given: Given) -> None:
    """Raises a RequestError for what cannot be loaded."""
    if unknown := sorted(given.options.keys() - repair.options().model_fields.keys() - {"recovery"}):
        known = ", ".join(["recovery", *repair.options().model_fields])
        raise RequestError(Problem(f"`{unknown[0]}` is no option of recovery `{repair.name}`", f"it has {known}"))
    if not (repair.files.is_loadable or given.takes_texts):
        hint = "load the compressed model, and put the text in front of its inputs"
        raise RequestError(Problem(f"recovery `{repair.name}` is a text and no part of a model", hint))
    ours, theirs = (each.tuning.name if each.tuning is not None else None for each in (repair, stored.repair))
    has_what_it_takes = ours == theirs if ours is not None else stored.repair.name == "none"  # two repairs may use one pool
    if repair.name != stored.repair.name and not has_what_it_takes:
        message = f"what is loaded has recovery `{stored.repair.name}`, not `{repair.name}`"
        raise RequestError(Problem(message, "leave `recovery` out"))

"""llmrepair conjecture --model lab --method gptq --bits 3 --tasks lab_qa"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.conjecture.analysis import Found, Readings, Results, find, index_of, item_fates, readable, tests, untuned
from llmrepair.stages.conjecture.answered import read_answered
from llmrepair.stages.conjecture.evidence import Answered, Evidence, evidence
from llmrepair.stages.conjecture.overlap import first_words, overlaps
from llmrepair.stages.conjecture.roles import DAMAGED, DENSE, FLOOR, READINGS, RESULT_FILE, Arms, Role
from llmrepair.stages.conjecture.rule import judge, second_sentence
from llmrepair.stages.conjecture.samples import answered_right, of_models, readings_of, tested
from llmrepair.stages.conjecture.texts import Texts, read_texts, text_lines, texts_metrics, texts_result
from llmrepair.stages.conjecture.verdict import overall, sentence, verdict
from llmrepair.stages.evaluate.items import Item, judged_samples
from llmrepair.stages.sources.lab import world_of
from llmrepair.stages.sources.texts import load_texts
from llmrepair.stages.statistics.fates import Items, classes
from llmrepair.stages.statistics.resampling import Resampling
from llmrepair.stages.statistics.significance import holm

if TYPE_CHECKING:
    from llmrepair.stages.conjecture.stage import Conjecture

ITEMS_FILE = "items.jsonl"
_MOST_OVERLAP = 0.5


@dataclass(frozen=True)
class JudgedTask:
    """A task's items, of those that the tuning text does not hold, and who answers them right."""

    name: str
    items: list[Item]
    overlap: list[str | None]
    """Of every item, why it is left out; None where it is not."""
    dense: Items
    models: dict[str, Results]
    readings: Readings | None
    answered: Answered | None
    """What the second rule goes by; None of the first."""


def run(stage: Conjecture, context: Context) -> dict[str, Any]:
    tasks, texts, others = _read_tasks(stage, context)
    compressed = stage.damaged.compressed
    model = compressed.label()
    arms = Arms.of(stage.arms)
    answers = {task.name: _of_task(task, model, arms, stage) for task in tasks}
    _add_holm(answers)
    likelihoods = {each.name: texts_result(each, model, arms) for each in texts}
    results = answers | likelihoods
    with (context.folder / ITEMS_FILE).open("w", encoding="utf-8") as file:
        lines = itertools.chain(*(_item_lines(task, arms) for task in tasks), *map(text_lines, texts))
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    word = overall(result["verdict"]["word"] for result in results.values())
    sentences = [result["sentence"] for result in results.values()] + [f"{name} is left out, {_NEITHER}" for name in others]
    document = {
        "rule": stage.config.rule,
        "verdict": word,
        "sentences": sentences,
        "seeds": list(stage.config.seeds),
        "tasks": results,
    }
    write_json(context.folder / RESULT_FILE, document)
    metrics = {name: _metrics(each) for name, each in answers.items()}
    metrics |= {name: texts_metrics(each) for name, each in likelihoods.items()}
    return {"verdict": word, "sentences": sentences, "tasks": metrics}


_NEITHER = "because its answers are neither right or wrong nor texts with a likelihood"


def _read_tasks(stage: Conjecture, context: Context) -> tuple[list[JudgedTask], list[Texts], list[str]]:
    """The tasks that have right and wrong answers, those whose texts have a likelihood, and the names of others.

    Raises:
        WorkError: the tuning text holds more than half of a task's items.
    """
    dense = context.inputs[str(Role(DENSE))]
    tasks, texts, others = [], [], []
    for name in dense.metrics["tasks"]:
        if samples := judged_samples(dense, name):
            tasks.append(_read_task(stage, context, name, samples))
        elif found := read_texts(stage, context, name):
            texts.append(found)
        else:
            others.append(name)
    return tasks, texts, others


def _read_task(stage: Conjecture, context: Context, name: str, samples: Mapping[Item, Mapping[str, Any]]) -> JudgedTask:
    items = list(samples)
    questions = tested(list(samples.values()), world_of(stage.tuning.compressed.config.model))
    found = overlaps(questions, _tuning_text(stage))
    held = sum(reason is not None for reason in found)
    if held > _MOST_OVERLAP * len(items):
        message = (
            f"the tuning text holds {held} of the {len(items)} items of {name}, so what a repair brings back may be learned"
        )
        raise WorkError(Problem(message, "give other text with --tuning-data, or other --tasks"))
    kept = np.array([reason is None for reason in found])

    def right(role: Role) -> Items:
        return answered_right(context.inputs[str(role)], name, items)[kept]

    asked = [question for question, is_kept in zip(questions, kept, strict=True) if is_kept]
    readings = None
    if stage.probe is not None:
        readings = readings_of(context.inputs[READINGS], context.inputs.get(FLOOR), asked)
    of_second_rule = None
    if stage.config.rule == "second":
        of_second_rule = read_answered(
            stage, context, name, [item for item, is_kept in zip(items, kept, strict=True) if is_kept], asked
        )
    return JudgedTask(name, items, found, right(Role(DENSE)), of_models(stage, right), readings, of_second_rule)


def _tuning_text(stage: Conjecture) -> Iterator[str]:
    """At least all that was tuned on: packing drops less than a row for each that it keeps, and a word is a token at least."""
    config, identity = stage.tuning.config, stage.tuning.tuning_data
    return first_words(load_texts(config.tuning_data, identity), (2 * config.tuning_samples + 1) * config.tuning_seq_len)


def _of_task(task: JudgedTask, model: str, arms: Arms, stage: Conjecture) -> dict[str, Any]:
    first = _by_first_rule(task, model, arms, stage.anchors)
    return first if task.answered is None else first | _by_second_rule(task.name, task.answered, model, stage)


def _by_second_rule(name: str, answered: Answered, model: str, stage: Conjecture) -> dict[str, Any]:
    found = evidence(answered, stage.anchors, stage.latent_control)
    judged = judge(found)
    return {
        "verdict": asdict(judged),
        "sentence": second_sentence(model, name, found, judged),
        "displacement": _corrected(found, stage.anchors),
        "evidence": found.as_json(),
    }


def _corrected(found: Evidence, anchors: Mapping[str, str]) -> dict[str, Any] | None:
    """The index, as the first rule's is told."""
    if found.index is None:
        return None
    index, names = found.index.index, {DAMAGED: DAMAGED, "displaced": anchors["displaced"], "erased": anchors["forgotten"]}
    of_models = {end: found.recovery.get(name) for end, name in names.items()}
    return {
        "index": asdict(index.estimate) if index is not None else None,
        "separation": asdict(found.index.separation),
        "net": {end: asdict(each.corrected) for end, each in of_models.items() if each is not None},
    }


def _by_first_rule(task: JudgedTask, model: str, arms: Arms, anchors: Mapping[str, str]) -> dict[str, Any]:
    resampling = Resampling(len(task.dense))
    found = {name: find(task.dense, answers, task.models[DAMAGED], arms, resampling) for name, answers in task.models.items()}
    index = index_of(task.dense, task.models, anchors, arms, resampling)
    lost, shares = found[DAMAGED].lost, found[DAMAGED].shares
    read = readable(task.dense, task.models[DAMAGED], task.readings, arms, resampling) if task.readings is not None else None
    edge = untuned(task.dense, task.models[DAMAGED], arms, resampling)
    return {
        "kind": "answers",
        "verdict": asdict(verdict(lost, index)),
        "sentence": sentence(model, task.name, int(task.dense.sum()), lost, shares, index, edge),
        "items": len(task.dense),
        "overlap": {"items": len(task.items), **Counter(reason for reason in task.overlap if reason is not None)},
        "displacement": asdict(index) if index is not None else None,
        "models": {name: _found(each) for name, each in found.items()},
        "untuned": asdict(edge) if edge is not None else None,
        "readable": asdict(read) if read is not None else None,
        "tests": {name: asdict(test) for name, test in tests(task.models[DAMAGED], arms).items()},
    }


def _found(found: Found) -> dict[str, Any]:
    return {**asdict(found), "items": found.items.counts()}


def _add_holm(results: Mapping[str, dict[str, Any]]) -> None:
    """p-values of each repair, adjusted for the number of tasks."""
    recoveries = dict.fromkeys(name for result in results.values() for name in result["tests"])
    for recovery in recoveries:
        adjusted = holm({task: result["tests"][recovery]["p_value"] for task, result in results.items()})
        for task, p_value in adjusted.items():
            results[task]["tests"][recovery]["p_holm"] = p_value


def _item_lines(task: JudgedTask, arms: Arms) -> Iterator[dict[str, Any]]:
    """What became of each item, of each seed; an item that the tuning text holds has a reason for that and no class."""
    damaged = task.models[DAMAGED]
    names, fates = iter(classes(task.dense, damaged.alone).names()), iter(item_fates(damaged, arms))
    recovered = {recovery: iter(repaired.T.tolist()) for recovery, repaired in damaged.repaired.items()}
    read = iter(task.readings.probe.tolist()) if task.readings is not None else None
    for item, reason in zip(task.items, task.overlap, strict=True):
        line = {"task": task.name, **item._asdict(), "overlap": reason, "class": None}
        if reason is None:
            name, fate = next(names), next(fates)
            line |= {"class": name, "fate": fate if name == "lost" else None}
            line["right"] = {recovery: next(of_items) for recovery, of_items in recovered.items()}
            line |= {"read": next(read)} if read is not None else {}
        yield line


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers that stand for a task."""
    displacement, model = result["displacement"], result["models"][DAMAGED]
    return {
        "verdict": result["verdict"]["word"],
        "items": result["items"],
        "lost": model["items"]["lost"],
        "displacement_index": displacement["index"] if displacement is not None else None,
        "shares": model["shares"],
    }

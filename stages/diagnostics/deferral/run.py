"""llmrepair deferral --model lab --method gptq --bits 3 --recoveries idp,lora --tasks lab_mc"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.diagnostics.choices import Task, read_task
from llmrepair.stages.diagnostics.deferral.confidence import agreement, learned, plain_confidences, shuffled
from llmrepair.stages.diagnostics.deferral.figure import deferral_figure
from llmrepair.stages.diagnostics.deferral.selective import (
    Order,
    accuracy_at,
    augrc,
    aurc,
    best_aurc,
    calibration_error,
    cascade,
    risks,
    separation,
    share_needed,
    skill,
)
from llmrepair.stages.diagnostics.estimates import drawn
from llmrepair.stages.diagnostics.names import ALONE, DENSE
from llmrepair.stages.drawing.svg import Look
from llmrepair.stages.statistics.resampling import Estimate
from llmrepair.stages.statistics.subjects import Drawn, Share, Subjects

if TYPE_CHECKING:
    from llmrepair.stages.diagnostics.deferral.stage import Deferral

Key = tuple[str, str, str]
"""Model, confidence, measure."""

_POINTS = 20
"""Of a curve, besides its start."""
_PROBABILITIES = ("probability", "learned")
_SHUFFLED = "shuffled"
_BOUNDS = {"skill": (-np.inf, 1.0), "e_aurc_change": (-1.0, 1.0)}
"""Of what is no share."""


@dataclass(frozen=True)
class Model:
    """What one model does with the n items of a task."""

    right: NDArray[np.bool_]
    gains: NDArray[np.float64]
    """What the dense model's answer to each item gains: 1, 0 or -1."""
    dense: NDArray[np.bool_]
    confidences: Mapping[str, NDArray[np.float64]]
    bits: float
    """Per weight."""


def run(stage: Deferral, context: Context) -> dict[str, Any]:
    names = context.inputs[DENSE].metrics["tasks"]
    inputs = {name: artifact for name, artifact in context.inputs.items() if name != "compressed"}
    read = {name: read_task(inputs, name) for name in names}
    found = [_of_task(stage, context, task) for task in read.values() if task is not None and _can_be_sure(stage, task)]
    if not found:
        message = f"nothing says how sure a model is of its answers to {', '.join(names)}"
        raise WorkError(Problem(message, "give --tasks with choices, or --recoveries with a pool of prompts"))
    left_out = sorted(set(names) - {each["task"] for each in found})
    write_json(context.folder / "deferral.json", {"tasks": found, "left_out": left_out})
    placed = {each.repair.name: each.repair for each in (stage.asked.alone, *stage.asked.repaired.values())}
    looks = {name: Look(repair.colour, repair.shape) for name, repair in placed.items()}
    figure = deferral_figure(found, looks, stage.compressed.label())
    (context.folder / "deferral.svg").write_text(figure, encoding="utf-8")
    return {each["task"]: {row["model"]: _headline(row) for row in each["rows"]} for each in found}


def _can_be_sure(stage: Deferral, task: Task) -> bool:
    return task.answers[DENSE].loglikelihoods is not None or bool(stage.asked.parts)


def _of_task(stage: Deferral, context: Context, task: Task) -> dict[str, Any]:
    subjects = Subjects(task.subjects)
    models = {name: _model(stage, context, task, name, subjects) for name in stage.models}
    models = {name: model for name, model in models.items() if model.confidences}
    numbers = drawn(lambda weights: _numbers(models, weights), subjects)
    numbers |= dict(_changes(models, numbers))
    rows = [{"label": stage.labels[name], **_row(name, model, numbers, subjects)} for name, model in models.items()]
    return {"task": task.name, "items": len(task.subjects), "subjects": len(set(task.subjects)), "rows": rows}


def _model(stage: Deferral, context: Context, task: Task, name: str, subjects: Subjects) -> Model:
    answers, dense = task.answers[name], task.answers[DENSE].right
    confidences = plain_confidences(answers.loglikelihoods) if answers.loglikelihoods is not None else {}
    if parts := stage.parts_of(name):
        confidences["agreement"] = agreement(answers.predictions, [task.answers[part].predictions for part in parts])
    if confidences:
        first = next(iter(confidences.values()))
        confidences["learned"] = learned(confidences, answers.right, subjects.numbers)
        confidences[_SHUFFLED] = shuffled(first)
    gains = dense.astype(float) - answers.right
    return Model(answers.right, gains, dense, confidences, context.inputs[name].metrics["bits_per_weight"])


def _numbers(models: Mapping[str, Model], weights: NDArray[Any]) -> dict[Key, NDArray[Any]]:
    """[R] each."""
    return {
        (name, confidence, measure): value
        for name, model in models.items()
        for confidence in model.confidences
        for measure, value in _measures(model, confidence, weights).items()
    }


def _measures(model: Model, name: str, weights: NDArray[Any]) -> dict[str, NDArray[Any]]:
    confidence, wrong = model.confidences[name], ~model.right
    order = Order(confidence)
    area = aurc(order, wrong, weights)
    found = {
        "aurc": area,
        "e_aurc": area - best_aurc(confidence, wrong, weights),
        "augrc": augrc(order, wrong, weights),
        "accuracy_at_80": accuracy_at(order, wrong, weights),
    }
    if name in _PROBABILITIES:
        found["ece"] = calibration_error(confidence, model.right, weights)
    lost, kept = model.dense & wrong, model.dense & model.right
    if lost.any() and kept.any():
        found["kept_from_lost"] = separation(order, kept, lost, weights)
    if len(set(model.gains)) > 1:
        found["skill"] = skill(confidence, model.gains, weights)
        found["share_needed"] = share_needed(confidence, model.gains, weights)
    return found


def _changes(models: Mapping[str, Model], numbers: Mapping[Key, Drawn]) -> Iterator[tuple[Key, Drawn]]:
    """E-AURC of the compressed model less the dense one's, and of each repair less the compressed one's."""
    for name, model in models.items():
        baseline = DENSE if name == ALONE else ALONE
        for confidence in model.confidences:
            before = numbers.get((baseline, confidence, "e_aurc"))
            if name != DENSE and before is not None and confidence != _SHUFFLED:
                now = numbers[name, confidence, "e_aurc"]
                change = Drawn(now.value - before.value, now.draws - before.draws)
                yield (name, confidence, "e_aurc_change"), change


def _row(name: str, model: Model, numbers: Mapping[Key, Drawn], subjects: Subjects) -> dict[str, Any]:
    accuracy = subjects.draw(lambda shares, _: shares[..., 0], [Share(model.right[None], np.ones(len(model.right)))])
    of_model: dict[str, dict[str, Any]] = {confidence: {} for confidence in model.confidences}
    for (owner, confidence, measure), number in numbers.items():
        if owner == name:
            of_model[confidence][measure] = asdict(_bounded(number.estimate, *_BOUNDS.get(measure, (0.0, 1.0))))
    return {
        "model": name,
        "bits": model.bits,
        "accuracy": asdict(accuracy.estimate),
        "confidences": of_model,
        "curves": {confidence: _curves(values, model) for confidence, values in model.confidences.items()},
    }


def _bounded(estimate: Estimate, least: float, most: float) -> Estimate:
    return Estimate(estimate.value, max(least, estimate.low), min(most, estimate.high))


def _curves(confidence: NDArray[np.float64], model: Model) -> dict[str, list[float]]:
    """Risk at each coverage, and the cascade's accuracy at each share that the dense model answers."""
    places = np.linspace(0, len(confidence), _POINTS + 1).round().astype(int)
    risk, accuracy = risks(Order(confidence), ~model.right), cascade(confidence, model.right, model.gains)
    return {"risk": risk[places[1:] - 1].round(6).tolist(), "cascade": accuracy[places].round(6).tolist()}


def _headline(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of the first confidence, and of the learned one."""
    first = next(iter(row["confidences"]))
    measures = ("e_aurc", "skill", "share_needed")
    return {
        confidence: {name: row["confidences"][confidence][name] for name in measures if name in row["confidences"][confidence]}
        for confidence in dict.fromkeys((first, "learned"))
    }

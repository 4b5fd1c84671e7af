"""Tasks that only ask how likely texts are, such as perplexities: nothing in them is right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrepair.pipeline.stage import Context
from llmrepair.stages.conjecture.analysis import Results
from llmrepair.stages.conjecture.roles import DAMAGED, DENSE, Arms, Role
from llmrepair.stages.conjecture.samples import of_models, text_losses
from llmrepair.stages.conjecture.verdict import NO_ANSWERS, Verdict, text_sentence
from llmrepair.stages.evaluate.items import Item
from llmrepair.stages.statistics.damage import damage
from llmrepair.stages.statistics.resampling import Floats, Resampling

if TYPE_CHECKING:
    from llmrepair.stages.conjecture.stage import Conjecture

_UNCHECKED = "not checked: that a text as long as these shares some words in a row with the tuning text means nothing"


@dataclass(frozen=True)
class Texts:
    """A task's texts, and what they cost each model."""

    name: str
    items: list[Item]
    dense: Floats
    """[n] losses in nats."""
    models: dict[str, Results]
    scores: dict[str, dict[str, dict[str, float]]]
    """Model -> repair, or `none` -> metric -> value, of several seeds the mean."""


def read_texts(stage: Conjecture, context: Context, name: str) -> Texts | None:
    """None of a task that asks for something else."""
    found = {role: text_losses(context.inputs[str(role)], name) for role in stage.evaluations}
    if not all(found.values()):
        return None
    items = list(found[Role(DENSE)])

    def losses(role: Role) -> Floats:
        return np.array([found[role][item] for item in items])

    scores: dict[str, dict[str, dict[str, float]]] = {}
    for model, arm in dict.fromkeys((role.model, role.arm) for role in stage.evaluations if not role.is_null):
        of_seeds = [role for role in stage.evaluations if (role.model, role.arm) == (model, arm)]
        metrics = [context.inputs[str(role)].metrics["tasks"][name] for role in of_seeds]
        means = {metric: float(np.mean([each[metric]["value"] for each in metrics])) for metric in metrics[0]}
        scores.setdefault(model, {})[arm] = means
    return Texts(name, items, losses(Role(DENSE)), of_models(stage, losses), scores)


def texts_result(texts: Texts, model: str, arms: Arms) -> dict[str, Any]:
    """What is said of the task, as JSON values."""
    resampling = Resampling(len(texts.items))
    found = {name: damage(texts.dense, of.alone, of.repaired, resampling) for name, of in texts.models.items()}
    return {
        "kind": "texts",
        "verdict": asdict(Verdict("undetermined", NO_ANSWERS)),
        "sentence": text_sentence(model, texts.name, found[DAMAGED], arms.words),
        "items": len(texts.items),
        "overlap": _UNCHECKED,
        "dense": texts.scores[DENSE]["none"],
        "models": {name: {**asdict(each), "scores": texts.scores[name]} for name, each in found.items()},
    }


def text_lines(texts: Texts) -> Iterator[dict[str, Any]]:
    """The losses of each text, of each seed: it is lost or kept as little as right or wrong."""
    damaged = texts.models[DAMAGED]
    for number, item in enumerate(texts.items):
        alone = {DENSE: texts.dense[number], "none": damaged.alone[number]}
        repaired = {recovery: losses[:, number].tolist() for recovery, losses in damaged.repaired.items()}
        yield {"task": texts.name, **item._asdict(), "class": None, "nats": alone | repaired}


def texts_metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers that stand for the task."""
    model = result["models"][DAMAGED]
    return {"verdict": result["verdict"]["word"], "items": result["items"], "damage": model["nats"], "undone": model["undone"]}

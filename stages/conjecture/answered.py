"""Who answers the items of a task right, in each phrasing and behind placebos: what the second rule goes by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.pipeline.stage import Context
from llmrepair.stages.conjecture.candidates import Layout, Sample, layout_of
from llmrepair.stages.conjecture.evidence import Answered
from llmrepair.stages.conjecture.overlap import Asked
from llmrepair.stages.conjecture.roles import DENSE, Arms, Role
from llmrepair.stages.evaluate.items import Item, judged_samples, names_in, subject_of
from llmrepair.stages.statistics.fact_damage import Candidates
from llmrepair.stages.statistics.fates import Items
from llmrepair.stages.statistics.robust import Answers

if TYPE_CHECKING:
    from llmrepair.stages.conjecture.stage import Conjecture


def read_answered(
    stage: Conjecture, context: Context, task: str, items: Sequence[Item], questions: Sequence[Asked]
) -> Answered:
    arms = Arms.of(stage.arms)

    def samples(role: Role) -> list[Sample]:
        found = judged_samples(context.inputs[str(role)], task)
        return [found[item] for item in items]

    layout = layout_of(samples(Role(DENSE)))
    dense = _answers(samples(Role(DENSE)), layout)
    answers, lora, candidates = {}, {}, {}
    for model in stage.models:
        alone = _answers(samples(Role(model)), layout)
        pushed = [_answers(samples(role), layout) for role in stage.evaluations if role.model == model and role.is_null]
        prompt, adapter = (
            [_answers(samples(Role(model, arm, seed)), layout) for seed in stage.config.seeds]
            for arm in (arms.displaced, arms.latent)
        )
        right = [_right(each, layout) for each in (dense, alone)]
        answers[model] = Answers(*right, *(np.stack([_right(each, layout) for each in of]) for of in (pushed, prompt)))
        lora[model] = np.stack([_right(each, layout) for each in adapter])
        if layout is not None:
            candidates[model] = Candidates(dense, np.stack(pushed), np.stack(prompt), layout.names, layout.gold)
    return Answered(answers, lora, candidates, [_subject(each, number) for number, each in enumerate(questions)])


def _answers(samples: Sequence[Sample], layout: Layout | None) -> NDArray[Any]:
    """How likely each candidate is [P, n, W], or whether an item without candidates is right [1, n]."""
    return layout.scores(samples) if layout is not None else np.array([[sample["correct"] for sample in samples]], dtype=bool)


def _right(answers: NDArray[Any], layout: Layout | None) -> Items:
    """[P, n]."""
    found: Items = np.nanargmax(answers, -1) == layout.gold if layout is not None else answers
    return found


def _subject(question: Asked, number: int) -> tuple[str, ...]:
    """The people of a known world, or the names in the question."""
    return subject_of(question.entities or tuple(names_in(question.question)), number)

"""The second rule, step by step, and what it goes by where there are candidates to choose from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.known_damage import simulated_answers
from llmrepair.stages.conjecture.candidates import layout_of
from llmrepair.stages.conjecture.evidence import Answered, Evidence, evidence
from llmrepair.stages.conjecture.rule import judge, second_sentence
from llmrepair.stages.statistics.fact_damage import FactDamage
from llmrepair.stages.statistics.flows import CorrectedIndex, Flow, Flows, Recovery
from llmrepair.stages.statistics.resampling import Estimate
from llmrepair.stages.statistics.sensitivity import NOT_IDENTIFIED
from llmrepair.stages.statistics.shape import Shape
from llmrepair.stages.statistics.subjects import Drawn


def about(value: float, width: float = 0.05) -> Estimate:
    return Estimate(value, value - width, value + width)


def made(index: float | None, undone: float | None, width: float = 0.05) -> Evidence:
    """Of 55 that one measurement calls lost, 15 at the edge and 40 robustly lost."""
    draws = np.linspace(-width, width, 2001) / 0.95
    of_index = Drawn(index, index + draws) if index is not None else None
    flow = Flow(21, 17, 0, about(0.07))
    return Evidence(
        phrasings=8,
        subjects=30,
        placebos=8,
        has_candidates=True,
        called_lost=55,
        edge=about(15 / 55),
        lost=40,
        flows=Flows(55, flow, flow, about(0.5), 1.0),
        recovery={"model": Recovery(40, about(0.1), about(0.02), about(0.08))},
        index=CorrectedIndex(of_index, about(0.9), 40),
        damage={"model": FactDamage(about(undone, width) if undone is not None else None, about(3.0), 1.0)},
        fates=NOT_IDENTIFIED,
        shape=Shape(0.5, 0.0, 0.5, 0.5),
    )


@pytest.mark.parametrize(
    ("index", "undone", "word"),
    [
        (0.9, 0.85, "displaced"),
        (0.08, 0.08, "forgotten"),
        (0.5, 0.4, "mixed"),
        (0.9, 0.5, "undetermined"),
        (0.08, 0.5, "undetermined"),
        (0.24, 0.24, "undetermined"),
        (None, 0.9, "undetermined"),
        (0.9, None, "undetermined"),
    ],
)
def test_the_word_is_that_of_the_region_in_which_index_and_lambda_lie(
    index: float | None, undone: float | None, word: str
) -> None:
    judged = judge(made(index, undone))
    assert judged.word == word
    assert [step.decides for step in judged.path] == [False, False, False, True]


def test_without_candidates_the_index_alone_is_asked_for() -> None:
    found = replace(made(0.9, None), has_candidates=False, damage={})
    assert judge(found).word == "displaced"
    assert "no candidates to choose from" in second_sentence("lab gptq 3 bits", "lab_qa", found, judge(found))


def test_few_lost_items_are_nothing_to_judge_by() -> None:
    judged = judge(replace(made(0.9, 0.9), lost=29.4))
    assert (judged.word, len(judged.path)) == ("undetermined", 1)


def test_what_is_right_asked_another_way_was_at_the_edge() -> None:
    judged = judge(replace(made(0.9, 0.9), edge=about(0.5)))
    assert (judged.word, [step.decides for step in judged.path]) == ("edge", [False, True])


@pytest.mark.parametrize(("regained", "p_value", "word"), [(21, 0.01, "edge"), (21, 0.2, "forgotten"), (3, 0.01, "forgotten")])
def test_what_only_flows_both_ways_is_at_the_edge_and_what_does_not_flow_is_not(
    regained: float, p_value: float, word: str
) -> None:
    flow = Flow(regained, 17, 0, about(0.0))
    assert judge(replace(made(0.08, 0.08), flows=Flows(55, flow, flow, about(0.0), p_value))).word == word


def test_the_sentence_says_it_in_plain_words() -> None:
    found = made(0.08, 0.08)
    said = second_sentence("lab gptq 3 bits", "lab_mc", found, judge(found))
    assert said == (
        "Of the 55 questions of lab_mc that the dense model answers and lab gptq 3 bits does not, 15 are at the edge: asked "
        "another way they are right. Of the 40 robustly lost a prompt brings back 10 % [5, 15], placebos 2 % [-3, 7]; of the "
        "damage to these facts a prompt undoes 8 % [3, 13] more than placebos do: forgotten, because prompts bring back hardly "
        "more of what is robustly lost than placebos do"
    )
    half = made(0.5, 0.5)
    assert "(some of them always, others never)" in second_sentence("lab", "lab_mc", half, judge(half))
    one = replace(found, phrasings=1)
    assert "one phrasing, so that placebos alone tell" in second_sentence("lab", "lab_mc", one, judge(one))


@pytest.mark.parametrize(
    ("kind", "word"), [("edge", "edge"), ("erased", "forgotten"), ("displaced", "displaced"), ("mixture", "mixed")]
)
def test_simulated_truths_get_their_word(kind: str, word: str) -> None:
    models = {
        name: simulated_answers(of, 1, items=240, wrong=20, phrasings=2, placebos=8, seeds=2)
        for name, of in {"model": kind, "displaced": "displaced", "erased": "erased"}.items()
    }
    answers, candidates = ({name: found[part] for name, found in models.items()} for part in (0, 1))
    lora = {name: found.repaired for name, found in answers.items()}
    answered = Answered(answers, lora, candidates, [item // 3 for item in range(240)])
    found = evidence(answered, {"forgotten": "erased", "displaced": "displaced"}, "overwritten")
    assert judge(found).word == word, judge(found)


def sample(gold: int, phrasings: int = 1, **document: Any) -> dict[str, Any]:
    prompts = {"prompts": ["a"] * phrasings} if phrasings > 1 else {}
    return {
        "doc": {"gold": gold, **prompts, **document},
        "target": str(gold),
        "loglikelihoods": [-float(number) for number in range(3 * phrasings)],
        "arguments": {f"gen_args_{number}": {"arg_1": f" {'xyz'[number % 3]}"} for number in range(3 * phrasings)},
    }


def test_candidates_are_read_in_each_phrasing_by_kind_of_question() -> None:
    samples = [sample(0, 2, relation="P1"), sample(2, 2, relation="P2"), sample(1, 3, relation="P1")]
    layout = layout_of(samples)
    assert layout is not None
    assert (layout.phrasings, layout.gold.tolist()) == (2, [0, 2, 1])
    assert layout.names.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert layout.scores(samples)[1, 0].tolist() == [-3, -4, -5]
    assert layout_of([sample(0), {**sample(0), "loglikelihoods": None}]) is None

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.lab.tasks import data_file
from llmrepair.lab.world import NUMBER_OF_VALUES, make_world
from llmrepair.stages.evaluate.tasks.knowledge import AskedFact, asked_fact, known_bits, with_bits_per_parameter
from llmrepair.stages.statistics.scores import total_score

ASKED = st.tuples(st.booleans(), st.sampled_from([5.5, 9.0]), st.sampled_from([0.0, 0.25]))


def test_every_value_is_one_of_those_that_are_counted() -> None:
    people = make_world(576).people  # as many as there are books
    for attribute, number in NUMBER_OF_VALUES.items():
        assert len({getattr(person, attribute) for person in people}) == number


def test_a_fact_is_worth_the_values_that_it_could_have() -> None:
    assert asked_fact({"attribute": "book"}, True) == (True, math.log2(24 * 24), 0)
    assert asked_fact({"attribute": "city", "choices": ["Oslo", "Rome", "Lima", "Riga"]}, False) == (False, math.log2(48), 0.25)
    assert known_bits([AskedFact(True, 9.0, 0.0), AskedFact(False, 5.0, 0.0)]) == 9
    guessing = [AskedFact(True, 6.0, 0.25), *[AskedFact(False, 6.0, 0.25)] * 3]
    assert known_bits(guessing) == pytest.approx(0)


@given(st.lists(ASKED, min_size=1, max_size=40))
def test_the_total_is_the_sum_and_its_interval_holds_it(facts: list[tuple[bool, float, float]]) -> None:
    score = total_score(*np.array(facts, dtype=float).T)
    everything = sum(bits for _, bits, _ in facts)
    assert score.value == pytest.approx(known_bits([AskedFact(*fact) for fact in facts]), abs=1e-9)
    assert score.low <= score.value + 1e-9
    assert score.value <= score.high + 1e-9
    assert score.high <= everything + 1e-9
    assert score.n == len(facts)


@pytest.mark.parametrize("share, luck", [(0.5, 0.0), (0.97, 0.0), (0.6, 0.25)])
def test_the_interval_of_a_total_covers_what_it_should(share: float, luck: float) -> None:
    generator = np.random.default_rng(2)
    weights = np.repeat([5.5, 9.0], 100)
    truth = weights.sum() * share
    covered = 0
    for _ in range(400):
        correct = generator.random(200) < share + (1 - share) * luck
        score = total_score(correct.astype(float), weights, np.full(200, luck))
        covered += score.low <= truth <= score.high
    assert 0.92 <= covered / 400 <= 0.985


def test_bits_per_parameter() -> None:
    bits = {"value": 100.0, "stderr": 10.0, "low": 80.0, "high": 120.0, "n": 7}
    scores = with_bits_per_parameter({"acc": {}, "knowledge_bits": bits}, 50)
    assert scores["knowledge_bits_per_parameter"] == {"value": 2.0, "stderr": 0.2, "low": 1.6, "high": 2.4, "n": 7}
    assert with_bits_per_parameter({"acc": {}}, 50) == {"acc": {}}


def test_the_questions_name_attributes_that_are_counted() -> None:
    for task in ("lab_qa", "lab_mc"):
        assert all(f'"attribute": "{name}"' in data_file(task).read_text() for name in NUMBER_OF_VALUES)

"""Selective prediction and cascades, against sums over all items written out, and where the truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from llmrepair.stages.diagnostics.deferral.confidence import agreement, learned, plain_confidences, shuffled
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
from llmrepair.stages.statistics.subjects import Subjects

ONES = np.ones((1, 7))
CONFIDENCE = np.array([0.3, 0.9, 0.1, 0.7, 0.8, 0.2, 0.6])
WRONG = np.array([True, False, True, True, False, False, False])
DENSE = np.array([True, True, False, False, True, False, True])
GAINS = DENSE.astype(float) - ~WRONG  # 1, 0, 0, 0, 0, -1, 0
SUREST = [1, 4, 3, 6, 0, 5, 2]


def test_areas_are_what_harmonic_numbers_and_pairs_give() -> None:
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 8))])
    expected = sum(WRONG[item] * (harmonic[7] - harmonic[place]) for place, item in enumerate(SUREST)) / 7
    order = Order(CONFIDENCE)
    assert aurc(order, WRONG, ONES)[0] == pytest.approx(expected)
    assert risks(order, WRONG).mean() == pytest.approx(expected)
    pairs = [CONFIDENCE[sure] > CONFIDENCE[unsure] for sure in np.flatnonzero(~WRONG) for unsure in np.flatnonzero(WRONG)]
    risk, roc = WRONG.mean(), np.mean(pairs)
    assert separation(order, ~WRONG, WRONG, ONES)[0] == pytest.approx(roc)
    # Traub et al. 2024, arXiv 2407.01032, proposition on the AUGRC
    assert augrc(order, WRONG, ONES)[0] == pytest.approx((1 - roc) * (1 - risk) * risk + risk**2 / 2)


def test_a_perfect_order_leaves_no_excess_and_its_optimum_is_the_published_one() -> None:
    weights = np.random.default_rng(0).exponential(size=(5, 7))
    perfect = np.where(WRONG, 0.0, 1.0) + CONFIDENCE / 10
    assert aurc(Order(perfect), WRONG, weights) == pytest.approx(best_aurc(perfect, WRONG, weights))
    assert (aurc(Order(CONFIDENCE), WRONG, weights) > best_aurc(CONFIDENCE, WRONG, weights)).all()
    many = np.arange(20_000) < 6_000
    assert best_aurc(np.zeros(20_000), many, np.ones((1, 20_000)))[0] == pytest.approx(0.3 + 0.7 * math.log(0.7), abs=1e-4)


def test_items_that_are_equally_sure_count_as_the_mean_over_their_orders() -> None:
    tied = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    wrong, gains, ones = np.array([False, True, False, True, True]), np.array([0.0, 1.0, -1.0, 0.0, 1.0]), np.ones((1, 5))
    orders = [np.array([4, *order, 0], dtype=float) for order in itertools.permutations((3, 2, 1))]
    for measure in (aurc, augrc, accuracy_at):
        expected = np.mean([measure(Order(order), wrong, ones) for order in orders])
        assert measure(Order(tied), wrong, ones)[0] == pytest.approx(expected)
    assert skill(tied, gains, ones)[0] == pytest.approx(np.mean([skill(order, gains, ones) for order in orders]))
    assert separation(Order(tied), ~wrong, wrong, ones)[0] == pytest.approx((3 + 1 + 1.0) / 6)


def test_an_item_of_weight_two_counts_as_two_items() -> None:
    weights = np.array([1.0, 2.0, 1.0, 1.0, 1.0, 3.0, 1.0])
    copies = np.repeat(np.arange(7), weights.astype(int))
    ones = np.ones((1, len(copies)))
    for measure in (augrc, accuracy_at):
        found = measure(Order(CONFIDENCE), WRONG, weights[None])
        assert found == pytest.approx(measure(Order(CONFIDENCE[copies]), WRONG[copies], ones))
    assert skill(CONFIDENCE, GAINS, weights[None]) == pytest.approx(skill(CONFIDENCE[copies], GAINS[copies], ones))
    args = (CONFIDENCE, GAINS)
    assert share_needed(*args, weights[None]) == pytest.approx(share_needed(*(each[copies] for each in args), ones))


def test_accuracy_of_the_surest() -> None:
    assert accuracy_at(Order(CONFIDENCE), WRONG, ONES, 3 / 7)[0] == pytest.approx(2 / 3)
    assert accuracy_at(Order(CONFIDENCE), WRONG, ONES, 0.5)[0] == pytest.approx(2.5 / 3.5)  # half of the fourth, which is right
    assert accuracy_at(Order(CONFIDENCE), WRONG, ONES, 1.0)[0] == pytest.approx(4 / 7)


def test_a_cascade_hands_on_the_least_sure() -> None:
    right = ~WRONG
    expected = [np.mean([*(DENSE[SUREST[7 - k :]] if k else []), *right[SUREST[: 7 - k]]]) for k in range(8)]
    assert cascade(CONFIDENCE, right, GAINS) == pytest.approx(expected)
    area, at_random = np.trapezoid(expected, dx=1 / 7), (right.mean() + DENSE.mean()) / 2
    best = np.trapezoid(right.mean() + np.array([0, *np.cumsum(sorted(GAINS, reverse=True))]) / 7, dx=1 / 7)
    assert skill(CONFIDENCE, GAINS, ONES)[0] == pytest.approx((area - at_random) / (best - at_random))
    assert skill(GAINS * -1, GAINS, ONES)[0] == pytest.approx(1)
    assert skill(GAINS, GAINS, ONES)[0] == pytest.approx(-1)


def test_the_least_share_that_comes_near_the_second_model() -> None:
    gains = np.array([0.0, 1.0, 0.0, 1.0])
    assert share_needed(np.array([4.0, 1.0, 3.0, 2.0]), gains, np.ones((1, 4)))[0] == pytest.approx(0.5)
    assert share_needed(np.array([4.0, 3.0, 1.0, 2.0]), gains, np.ones((1, 4)))[0] == pytest.approx(0.75)
    assert share_needed(np.array([1.0, 2.0]), np.array([0.0, -1.0]), np.ones((1, 2)))[0] == 0  # it is the better one


def test_calibration_of_probabilities_that_are_true_and_of_those_that_are_not() -> None:
    probability = np.repeat(np.linspace(0.05, 0.95, 10), 1000)
    right = np.random.default_rng(0).random(10_000) < probability
    weights = np.ones((1, 10_000))
    assert calibration_error(probability, right, weights)[0] < 0.02
    assert calibration_error(np.minimum(1, probability + 0.2), right, weights)[0] == pytest.approx(0.2, abs=0.04)
    bins = [abs((probability - right)[k * 1000 : (k + 1) * 1000].sum()) for k in range(10)]
    assert calibration_error(probability, right, weights)[0] == pytest.approx(sum(bins) / 10_000)


def test_confidences_of_choices() -> None:
    found = plain_confidences([np.log([0.2, 0.6, 0.1]), np.log([0.01, 0.01])])
    assert found["margin"] == pytest.approx([math.log(3), 0])
    assert found["probability"] == pytest.approx([2 / 3, 1 / 2])
    assert found["mass"] == pytest.approx(np.log([0.9, 0.02]))
    shares = np.array([2, 6, 1]) / 9
    assert found["entropy"] == pytest.approx([(shares * np.log(shares)).sum(), -math.log(2)])
    assert agreement(["a", "b"], [["a", "a"], ["a", "b"], ["c", "b"]]) == pytest.approx([2 / 3, 2 / 3])


def simulated(n: int) -> tuple[Subjects, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    confidence = generator.normal(size=n)
    right = generator.random(n) < 1 / (1 + np.exp(-2 * confidence))
    return Subjects([number // 4 for number in range(n)]), confidence, right


def test_a_learned_confidence_finds_what_is_there_and_nothing_else() -> None:
    subjects, confidence, right = simulated(800)
    noise = np.random.default_rng(2).normal(size=800)
    ones = np.ones((1, 800))
    found = learned({"noise": noise, "backwards": -confidence}, right, subjects.numbers)
    assert separation(Order(found), right, ~right, ones)[0] > 0.95 * separation(Order(confidence), right, ~right, ones)[0]
    assert calibration_error(found, right, ones)[0] < 0.06
    assert separation(Order(learned({"noise": noise}, right, subjects.numbers)), right, ~right, ones)[0] < 0.56


def test_a_learned_confidence_never_saw_the_subject() -> None:
    """Each subject's items are all right or all wrong, and a feature tells the subject: nothing to learn for another one."""
    of_subjects = np.random.default_rng(3).random(40) < 0.5
    subjects = np.repeat(np.arange(40), 5)
    right = of_subjects[subjects]
    found = learned({f"subject {number}": (subjects == number).astype(float) for number in range(40)}, right, subjects)
    assert separation(Order(found), right, ~right, np.ones((1, 200)))[0] < 0.6


def test_intervals_hold_nothing_for_a_shuffled_confidence_and_something_for_a_real_one() -> None:
    subjects, confidence, right = simulated(800)
    gains = 1.0 - right  # the second model is always right
    found = drawn(lambda weights: {"real": skill(confidence, gains, weights)}, subjects)
    found |= drawn(lambda weights: {"shuffled": skill(shuffled(confidence), gains, weights)}, subjects)
    real, nothing = (found[name].estimate for name in ("real", "shuffled"))
    assert real.low > 0.4 and real.high < 1
    assert nothing.low < 0 < nothing.high

"""Resampling by subject, against closed forms and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from llmrepair.stages.statistics.subjects import Drawn, Share, Subjects, lost_again


def rate(subjects: Subjects, right: NDArray[np.bool_]) -> Drawn:
    return subjects.draw(lambda shares, _: shares[..., 0], [Share(right, np.ones(right.shape[1]))])


@pytest.mark.parametrize("right", [0, 3, 20, 40])
@pytest.mark.parametrize("of_a_subject", [1, 5])
def test_subjects_that_answer_alike_count_as_one_answer(right: int, of_a_subject: int) -> None:
    answers = np.repeat(np.arange(40) < right, of_a_subject)[None]
    found = rate(Subjects(np.repeat(np.arange(40), of_a_subject).tolist()), answers).estimate
    jeffreys = stats.beta(right + 0.5, 40 - right + 0.5).ppf([0.025, 0.975])
    assert found.value == pytest.approx(right / 40)
    assert [found.low, found.high] == pytest.approx([min(jeffreys[0], right / 40), max(jeffreys[1], right / 40)], abs=0.02)


def test_an_interval_over_seeds_that_differ_is_students() -> None:
    right = np.stack([np.arange(4000) < most for most in (1000, 2000, 3000)])
    found = rate(Subjects(range(4000)), right).estimate
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 2) * 0.25 / np.sqrt(3), rel=0.05)


def test_the_truth_lies_in_19_of_20_intervals_where_items_depend_on_their_subject() -> None:
    generator, held, worlds = np.random.default_rng(1), 0, 200
    for world in range(worlds):
        subjects = np.repeat(np.arange(60), 4)
        chance = generator.beta(1, 2, 60)[subjects]  # 1/3 of all
        found = rate(Subjects(subjects.tolist(), world), generator.random((1, 240)) < chance).estimate
        held += found.low <= 1 / 3 <= found.high
    assert 0.90 <= held / worlds <= 0.99


def test_what_is_equivalent_to_nothing() -> None:
    small, large = Drawn(0.0, np.linspace(-0.05, 0.05, 1001)), Drawn(0.0, np.linspace(-0.3, 0.3, 1001))
    assert small.equivalence_p(0.1) == 0 and large.equivalence_p(0.1) == pytest.approx(1 / 3, abs=0.01)
    assert Drawn(0.2, np.linspace(0.15, 0.25, 1001)).equivalence_p(0.1) == 1


@settings(max_examples=20, deadline=None)
@given(arrays(bool, (3, 12)))
def test_lost_again_is_the_mean_over_pairs_of_draws(lost: NDArray[np.bool_]) -> None:
    found = lost_again(lost, Subjects(range(12)))
    if found is None:
        assert not lost.any()
        return
    pairs = list(itertools.permutations(lost, 2))
    assert found.value == pytest.approx(sum((a & b).sum() for a, b in pairs) / sum(a.sum() for a, _ in pairs))
    assert found.estimate.low <= found.value <= found.estimate.high

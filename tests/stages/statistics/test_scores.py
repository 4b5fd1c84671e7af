from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from llmrepair.stages.statistics.comparison import counts
from llmrepair.stages.statistics.paired import crossed_mean, paired_difference
from llmrepair.stages.statistics.scores import mean_score, rate_score, wilson_interval
from llmrepair.stages.statistics.significance import mcnemar


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(counts: tuple[int, int]) -> None:
    expected = stats.binomtest(*counts).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(*counts)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert low <= counts[0] / counts[1] <= high


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40).filter(lambda values: not set(values) <= {0.0, 1.0}))
def test_mean_and_standard_error_are_scipys(values: list[float]) -> None:
    score = mean_score(np.array(values))
    assert score.value == pytest.approx(np.mean(values), abs=1e-9)
    assert score.stderr == pytest.approx(stats.sem(values), abs=1e-9)
    assert score.low <= score.value <= score.high


def test_rates_of_loglikelihood() -> None:
    loglikelihoods, words = np.array([-10.0, -30.0]), np.array([5.0, 15.0])
    assert rate_score(loglikelihoods, words, exponential=True).value == pytest.approx(math.exp(2))
    assert rate_score(loglikelihoods, words, exponential=False).value == pytest.approx(2 / math.log(2))
    score = rate_score(loglikelihoods, words, exponential=True)
    assert score.low == pytest.approx(score.high)  # both items have the same rate


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(better: int, worse: int) -> None:
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(*pairs(better, worse, 120)) == pytest.approx(expected, abs=1e-9)


def pairs(better: int, worse: int, n: int, seeds: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Results of `seeds` equal ones, and the baseline."""
    after, before = np.zeros((seeds, n), dtype=bool), np.zeros(n, dtype=bool)
    after[:, :better], before[better : better + worse] = True, True
    return after, before


@pytest.mark.parametrize("seeds", [1, 3])
def test_where_nothing_differs_the_interval_has_the_width_that_items_leave(seeds: int) -> None:
    for n in (20, 200, 2000):
        found = paired_difference(*pairs(0, 0, n, seeds))
        assert found.value == 0
        assert found.high == -found.low == pytest.approx(1.96 / n, rel=0.2)


def test_the_interval_of_a_difference_is_that_of_agresti_and_min() -> None:
    better, worse, n = 9, 2, 100
    b, c, total = better + 0.5, worse + 0.5, n + 2
    error = math.sqrt((b + c - (b - c) ** 2 / total) / (total - 1) / total)
    expected = (b - c) / total + stats.t.ppf([0.025, 0.975], total - 1) * error
    found = paired_difference(*pairs(better, worse, n))
    assert (found.value, found.low, found.high) == pytest.approx((0.07, *expected))
    assert (paired_difference(*pairs(20, 0, 20)).high, paired_difference(*pairs(0, 20, 20)).low) == (1, -1)


@pytest.mark.parametrize(
    ("n", "up", "down"), [(20, 0.02, 0.02), (30, 0.05, 0.01), (30, 0.3, 0.1), (60, 0.5, 0.0), (60, 0.01, 0.0)]
)
def test_the_interval_of_a_difference_covers_it(n: int, up: float, down: float) -> None:
    """Exactly: over all tables that there can be."""
    covered = 0.0
    for better in range(n + 1):
        for worse in range(n + 1 - better):
            if (chance := stats.multinomial.pmf([better, worse, n - better - worse], n, [up, down, 1 - up - down])) > 1e-6:
                found = paired_difference(*pairs(better, worse, n))
                covered += chance * (found.low <= up - down <= found.high)
    assert covered >= 0.93


def test_the_interval_of_a_difference_covers_what_it_should() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        before = generator.random(300) < 0.6
        after = np.where(generator.random(300) < 0.2, generator.random(300) < 0.8, before)  # true difference 0.2 * 0.2
        difference = paired_difference(after[None], before)
        covered += difference.low <= 0.04 <= difference.high
    assert 0.90 <= covered / 200 <= 0.99


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_rates_count_each_item_where_it_belongs(items: list[tuple[bool, bool, bool]]) -> None:
    dense, compressed, repaired = (np.array(column) for column in zip(*items, strict=True))
    counted = counts(dense, compressed, repaired[None])
    assert counts(dense, compressed, np.stack([repaired, ~repaired])).recovered == counted.lost / 2
    assert counted.lost == sum(d and not c for d, c, _ in items)
    assert counted.recovered == sum(d and not c and r for d, c, r in items)
    assert counted.broken == sum(d and c and not r for d, c, r in items)
    assert counted.lucky == sum(not d and not c and r for d, c, r in items)


@given(st.lists(st.sampled_from([0.0, 1 / 3, 0.5, 1.0]), min_size=2, max_size=60))
def test_the_interval_of_a_mean_of_shares_holds_it_and_stays_among_them(values: list[float]) -> None:
    score = mean_score(np.array(values))
    assert 0 <= score.low <= score.value <= score.high <= 1


def test_the_interval_of_a_mean_of_shares_covers_what_it_should() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        known = generator.random(150) < 0.7
        shares = np.where(known, generator.choice([0.75, 1.0], 150), generator.choice([0.0, 0.25], 150))
        score = mean_score(shares)
        covered += score.low <= 0.7 * 0.875 + 0.3 * 0.125 <= score.high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("of_seeds", "of_items", "of_both"), [(0.1, 1.0, 1.0), (0.5, 1.0, 0.2), (0.0, 0.3, 1.0), (0.0, 1.0, 0.1)]
)
def test_the_interval_over_seeds_and_items_covers_what_it_should(of_seeds: float, of_items: float, of_both: float) -> None:
    """Each draws new seeds and new items, whose true mean is 0.3."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        seeds, items = generator.normal(0, of_seeds, (3, 1)), generator.normal(0, of_items, (1, 200))
        mean = crossed_mean(0.3 + seeds + items + generator.normal(0, of_both, (3, 200)))
        covered += mean.low <= 0.3 <= mean.high
    assert 0.92 <= covered / 1000 <= 0.985


def test_one_item_effect_is_a_t_test_over_seeds_and_one_seed_effect_over_items() -> None:
    values = np.array([0.1, 0.4, 0.2])
    expected = stats.ttest_1samp(values, 0)
    for every in (np.repeat(values[:, None], 50, 1), np.repeat(values[None], 50, 0), values[None]):
        mean = crossed_mean(every)
        assert (mean.low, mean.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_one_item_has_no_interval_unless_it_is_right_or_wrong() -> None:
    one = np.array([-3.0])
    for score in (mean_score(np.array([0.4])), mean_score(np.array([7.0])), rate_score(one, np.array([2.0]), True)):
        assert math.isnan(score.low) and math.isnan(score.high) and math.isnan(score.stderr)
    assert rate_score(one, np.array([2.0]), exponential=True).value == pytest.approx(math.exp(1.5))
    assert 0 < mean_score(np.array([1.0])).low < 1

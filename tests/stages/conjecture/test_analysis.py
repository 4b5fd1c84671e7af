"""The statistics of the conjecture test, against scipy, brute force and known truths."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from llmrepair.stages.conjecture.analysis import Results, Untuned, index_of
from llmrepair.stages.conjecture.overlap import Asked, first_words, overlaps
from llmrepair.stages.conjecture.roles import Arms
from llmrepair.stages.conjecture.stage import arms
from llmrepair.stages.conjecture.verdict import FEWEST_LOST, overall, sentence, text_sentence, verdict
from llmrepair.stages.evaluate.items import names_in
from llmrepair.stages.statistics.damage import Damage, damage
from llmrepair.stages.statistics.fates import Items, agreement, classes, fates, rates, shares
from llmrepair.stages.statistics.index import FEWEST_NEVER_KNOWN, Index, Recovered, displacement_index, net_recovery
from llmrepair.stages.statistics.resampling import Estimate, Part, Resampling
from llmrepair.stages.statistics.significance import combined_p, holm, mcnemar, noise_floor, power, smallest_effect

ITEMS, SEEDS = 40, 3
ALONE = arrays(bool, ITEMS)
REPAIRED = arrays(bool, (SEEDS, ITEMS))

ARMS = Arms.of({arm.name: arm for _, arm in arms()})
ANCHORS = {"forgotten": "erased", "displaced": "displaced"}


@given(ALONE, ALONE)
def test_each_item_is_of_one_class(dense: NDArray[Any], damaged: NDArray[Any]) -> None:
    items = classes(dense, damaged)
    assert (np.sum([items.lost, items.kept, items.never_known, items.gained], axis=0) == 1).all()
    assert (
        items.names().count("lost") == items.counts()["lost"] == sum(d and not c for d, c in zip(dense, damaged, strict=True))
    )


@settings(max_examples=25)
@given(ALONE, ALONE, REPAIRED, REPAIRED)
def test_shares_of_the_fates_add_to_one(
    dense: NDArray[Any], damaged: NDArray[Any], prompt: NDArray[Any], lora: NDArray[Any]
) -> None:
    items = classes(dense, damaged)
    assert (np.sum(list(fates(prompt, lora).values()), axis=0) == 1).all()
    found = shares(items, prompt, lora, Resampling(ITEMS))
    if not items.lost.any():
        assert found is None
        return
    assert found is not None
    assert sum(share.value for share in found.values()) == pytest.approx(1)
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in found.values())
    recovery = rates(items, prompt, Resampling(ITEMS)).recovery
    assert recovery is not None
    assert recovery.value == found["displaced"].value == pytest.approx(prompt[:, items.lost].mean())


@settings(max_examples=25)
@given(ALONE, ALONE, REPAIRED, st.permutations(range(ITEMS)), st.permutations(range(SEEDS)))
def test_the_order_of_items_and_seeds_changes_no_rate(
    dense: NDArray[Any], damaged: NDArray[Any], repaired: NDArray[Any], items: list[int], seeds: list[int]
) -> None:
    before = rates(classes(dense, damaged), repaired, Resampling(ITEMS))
    after = rates(classes(dense[items], damaged[items]), repaired[seeds][:, items], Resampling(ITEMS))
    for name, value in vars(before).items():
        assert (value is None) == (vars(after)[name] is None)
        assert value is None or value.value == pytest.approx(vars(after)[name].value)


@pytest.mark.parametrize(("right", "n"), [(0, 60), (1, 60), (30, 60), (59, 60), (60, 60)])
def test_the_interval_of_one_seed_is_jeffreys(right: int, n: int) -> None:
    found = Resampling(n).rate(Part(np.arange(n)[None] < right, np.ones(n, dtype=bool)))
    assert found is not None
    low, high = stats.beta.ppf([0.025, 0.975], right + 0.5, n - right + 0.5)
    assert found.low == pytest.approx(0 if right == 0 else low, abs=0.01)
    assert found.high == pytest.approx(1 if right == n else high, abs=0.01)


def test_an_interval_over_seeds_that_differ_is_students() -> None:
    """Every item is as every other: nothing but the seeds matters."""
    results = np.repeat(np.array([[True], [True], [False]]), 4000, 1)
    results[0, :800] = False  # 80, 100 and 0 %
    part = Part(results, np.ones(4000, dtype=bool))
    found = Resampling(4000).estimate(lambda rates: rates[..., 0], [part])
    expected = stats.ttest_1samp([0.8, 1.0, 0.0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.15)


def test_what_only_chance_makes_is_students_too() -> None:
    """Items are as easy as each other, so the seeds' rates are independent observations of one."""
    results, everything = np.random.default_rng(3).random((4, 4000)) < 0.8, np.ones(4000, dtype=bool)
    found = Resampling(4000).rate(Part(results, everything))
    expected = stats.ttest_1samp(results.mean(1), 0).confidence_interval()
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.15 * (expected.high - expected.low))


@pytest.mark.parametrize("right", [0, 7, 60])
def test_seeds_that_answer_alike_are_one(right: int) -> None:
    results, everything = np.arange(60)[None] < right, np.ones(60, dtype=bool)
    alone, alike = (Resampling(60).rate(Part(np.repeat(results, seeds, 0), everything)) for seeds in (1, 5))
    assert alone is not None and alike is not None
    assert vars(alike) == pytest.approx(vars(alone), abs=1e-6)


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(1, 50), st.booleans(), st.integers(0, 999))
def test_an_interval_holds_its_value(seeds: int, items: int, are_answers: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(generator.normal(), generator.random(), (seeds, items)) * generator.exponential(size=items)
    part = Part(values > 0 if are_answers else values, np.ones(items, dtype=bool))
    found = Resampling(items).estimate(lambda means: means[..., 0], [part])
    assert found.value == pytest.approx(part.results.mean())
    assert found.low <= found.value <= found.high
    assert math.isfinite(found.low) and math.isfinite(found.high)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("are_answers", [True, False])
def test_four_times_as_many_items_halve_the_interval(seeds: int, are_answers: bool) -> None:
    generator, widths = np.random.default_rng(0), {}
    for items in (50, 200):
        of_worlds = []
        for _ in range(60):
            values = generator.normal(0.5, 1, items) + generator.normal(0, 1, (seeds, items))
            part = Part(values > 0 if are_answers else values, np.ones(items, dtype=bool))
            found = Resampling(items).estimate(lambda means: means[..., 0], [part])
            of_worlds.append(found.high - found.low)
        widths[items] = np.median(of_worlds)
    assert widths[50] / widths[200] == pytest.approx(2, abs=0.4)


def test_the_interval_of_numbers_of_one_seed_is_students() -> None:
    numbers = np.random.default_rng(0).normal(3, 2, (1, 12))
    found = Resampling(12).estimate(lambda means: means[..., 0], [Part(numbers, np.ones(12, dtype=bool))])
    expected = stats.ttest_1samp(numbers[0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.07 * (expected.high - expected.low))


@pytest.mark.parametrize("skill", [0.0, 0.2])
def test_the_truth_lies_in_19_of_20_intervals_of_three_seeds(skill: float) -> None:
    """Where the seeds differ by about as much as chance makes them, a component of variance that is estimated as zero or more
    is often zero, and intervals that are made of it are too short; Behrens and Fisher's are too wide."""
    held = 0
    for seed in range(500):
        generator = np.random.default_rng(seed)
        logits = generator.normal(0, 1.5, 200) + generator.normal(0, skill, (3, 1))
        found = Resampling(200).rate(Part(generator.logistic(size=(3, 200)) < logits, np.ones(200, dtype=bool)))
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 0.93 <= held / 500 <= 0.97


def test_rates_on_the_same_items_are_paired() -> None:
    generator = np.random.default_rng(0)
    results, everything = generator.random((1, 500)) < 0.5, np.ones(500, dtype=bool)
    difference = Resampling(500).estimate(lambda r: r[..., 0] - r[..., 1], [Part(results, everything)] * 2)
    assert (difference.value, max(-difference.low, difference.high)) == (0, pytest.approx(0, abs=0.01))


def recovered(rate: float, generator: np.random.Generator, lost: int = 300, luck: float = 0.0, seeds: int = 3) -> Recovered:
    """Of 300 + 60 items: so many are lost, 60 were never known."""
    dense, alone = np.arange(360) < 300, (np.arange(360) >= lost) & (np.arange(360) < 300)
    chance = np.where(dense, rate, luck)
    return Recovered(classes(dense, alone), generator.random((seeds, 360)) < chance)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 0.3), st.floats(0.7, 1), st.floats(0, 0.2), st.sampled_from([1, 5]), st.integers(0, 99))
def test_the_controls_themselves_have_index_0_and_1(low: float, high: float, luck: float, seeds: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    erased, displaced = (recovered(rate, generator, 300, luck, seeds) for rate in (low, high))
    for model, expected in ((erased, 0), (displaced, 1)):
        found = displacement_index(model, displaced, erased, Resampling(360)).index
        assert found is not None
        assert found.value == pytest.approx(expected, abs=1e-9)
        assert found.low <= expected <= found.high


@pytest.mark.parametrize(("share", "word"), [(0.0, "forgotten"), (0.5, "mixed"), (1.0, "displaced")])
def test_known_truths_get_their_word(share: float, word: str) -> None:
    right = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        erased, displaced = recovered(0.03, generator), recovered(0.95, generator)
        model = recovered(0.03 + share * 0.92, generator, lost=150)
        index = displacement_index(model, displaced, erased, Resampling(360))
        assert index.index is not None
        right += verdict(150, index).word == word and index.index.low <= share <= index.index.high
    assert right >= 9


@pytest.mark.parametrize(("share", "word"), [(0.0, "forgotten"), (0.5, "mixed"), (1.0, "displaced")])
def test_what_was_never_known_stands_for_what_was_erased(share: float, word: str) -> None:
    right = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        displaced = recovered(0.95, generator, luck=0.05)
        model = recovered(0.05 + share * 0.9, generator, lost=200, luck=0.05)
        index = displacement_index(model, displaced, None, Resampling(360))
        assert index.index is not None
        assert index.index.value == pytest.approx(index.net["model"].value / index.net["displaced"].value)
        right += verdict(200, index).word == word and index.index.low <= share <= index.index.high
    assert right >= 9


def test_there_is_no_index_without_controls_or_luck() -> None:
    generator = np.random.default_rng(0)

    def answers(lost: int, never_known: int) -> Results:
        alone = np.arange(360) >= lost
        alone[360 - never_known :] = False
        return Results(alone, {"prompt": generator.random((2, 360)) < 0.5})

    def index(never_known: int, *names: str) -> Index | None:
        dense = np.arange(360) < 360 - never_known
        return index_of(dense, {name: answers(200, never_known) for name in names}, ANCHORS, ARMS, Resampling(360))

    assert index(0, "model", "displaced", "erased") is not None
    assert index(60, "model", "displaced") is not None
    assert index(29, "model", "displaced") is None
    assert index(60, "model", "erased") is None


def lost_some(lost: Items, back: Items) -> Results:
    """What a model answers that lost some of 100 items, of which the prompt brings some back with both seeds."""
    return Results(~lost, {"prompt": np.stack([~lost | back] * 2)})


def test_an_index_compares_models_on_the_items_that_all_of_them_lost() -> None:
    numbers, dense = np.arange(100), np.ones(100, dtype=bool)
    answers = {
        "model": lost_some(numbers < 60, numbers >= 40),
        "displaced": lost_some(numbers < 80, numbers < 40),  # what it lost beside the model comes back with none
        "erased": lost_some(numbers < 40, numbers < 0),
    }
    index = index_of(dense, answers, ANCHORS, ARMS, Resampling(100))
    assert index is not None
    assert {name: net.value for name, net in index.net.items()} == {"model": 0, "displaced": 1, "erased": 0}


@pytest.mark.parametrize(("first", "is_told"), [(30, True), (31, False)])
def test_there_is_no_index_where_a_control_lost_other_items(first: int, is_told: bool) -> None:
    numbers, dense = np.arange(100), np.ones(100, dtype=bool)
    other = numbers >= first
    answers = {
        "model": lost_some(numbers < 60, numbers < 0),
        "displaced": lost_some(other, other),
        "erased": lost_some(other, numbers < 0),
    }
    assert (index_of(dense, answers, ANCHORS, ARMS, Resampling(100)) is not None) == is_told


def test_there_is_hardly_ever_an_index_between_controls_that_are_alike() -> None:
    by_chance = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        alike, model = recovered(0.5, generator), recovered(0.9, generator)
        index = displacement_index(model, recovered(0.5, generator), alike, Resampling(360))
        assert verdict(300, index).word == "undetermined"
        by_chance += index.index is not None
        assert index.index is not None or "more of the displaced control" in verdict(300, index).why
    assert by_chance <= 2


def test_luck_is_subtracted_where_it_is_known() -> None:
    assert net_recovery(np.array([0.55, 0.1])) == pytest.approx(0.5)
    assert net_recovery(np.array([0.1, 0.1])) == pytest.approx(0)
    assert net_recovery(np.array([0.4])) == pytest.approx(0.4)
    assert net_recovery(np.array([[1.0, 0.3], [1.0, 1.0]])) == pytest.approx([1, 0])
    few = np.arange(100) < FEWEST_NEVER_KNOWN - 1
    items = classes(~few, np.zeros(100, dtype=bool))
    assert len(Recovered(items, np.ones((1, 100), dtype=bool)).parts()) == 1


def test_agreement_is_fishers_exact_test() -> None:
    generator = np.random.default_rng(0)
    lost, first, second = np.arange(50) < 40, generator.random((1, 50)) < 0.5, generator.random((1, 50)) < 0.3
    found = agreement(lost, first, second)
    assert found is not None
    one, other = first[0, :40], second[0, :40]
    table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
    assert found.p_value == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)
    assert found.jaccard == pytest.approx((one & other).sum() / (one | other).sum())
    shuffled = [generator.permutation(other) for _ in range(4000)]
    assert found.by_chance == pytest.approx(np.mean([(one & s).sum() / (one | s).sum() for s in shuffled]), abs=0.01)
    assert agreement(lost, first & False, second) is None
    assert agreement(lost, first, first) is not None


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p_values: dict[str, float]) -> None:
    """An adjusted p-value is the largest Bonferroni p-value of all sets of hypotheses that hold it (Marcus et al. 1976)."""
    adjusted = holm(p_values)
    sets = [each for size in range(1, len(p_values) + 1) for each in itertools.combinations(p_values, size)]
    for name in p_values:
        expected = max(min(1.0, len(each) * min(p_values[other] for other in each)) for each in sets if name in each)
        assert adjusted[name] == pytest.approx(expected)


def test_p_values_of_seeds_combine_to_a_p_value() -> None:
    assert combined_p([0.03]) == 0.03
    assert combined_p([0.5, 0.01, 0.02]) == pytest.approx(0.03)
    uniform = np.random.default_rng(0).random((4000, 3))
    same = np.repeat(uniform[:, :1], 3, 1)  # seeds that depend on each other wholly, and not at all
    assert all(np.mean([combined_p(row) <= 0.05 for row in rows.tolist()]) <= 0.055 for rows in (uniform, same))


def test_mcnemar_of_one_seed_is_the_exact_test() -> None:
    generator = np.random.default_rng(0)
    before, after = generator.random(80) < 0.5, generator.random((1, 80)) < 0.7
    expected = stats.binomtest(int((after[0] & ~before).sum()), int((after[0] ^ before).sum())).pvalue
    assert mcnemar(after, before) == pytest.approx(expected)
    assert mcnemar(after[[0, 0, 0]], before) == pytest.approx(min(1, 1.5 * expected))


def test_seeds_that_contradict_each_other_show_nothing() -> None:
    before = np.arange(40) < 20
    gains, loses = np.ones(40, dtype=bool), np.zeros(40, dtype=bool)
    assert mcnemar(np.stack([gains, gains]), before) == pytest.approx(2**-19)
    assert mcnemar(np.stack([gains, loses]), before) == 1


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.95])
def test_a_null_comparison_is_hardly_ever_significant(rate: float) -> None:
    generator = np.random.default_rng(1)
    difficulty = generator.normal(stats.norm.ppf(rate) * 1.5, 1, 640)
    floor = noise_floor(generator.normal(size=(3, 640)) < difficulty)
    assert floor is not None
    assert floor.resamplings == 200
    assert floor.significant <= 0.05
    assert 0 < floor.difference < 0.06


def test_one_tuning_has_no_noise_floor() -> None:
    assert noise_floor(np.ones((1, 20), dtype=bool)) is None


@pytest.mark.parametrize(("n", "difference", "discordance"), [(80, 0.1, 0.2), (640, 0.03, 0.1), (30, 0.3, 0.3), (30, 0.4, 0.1)])
def test_power_is_what_simulation_finds(n: int, difference: float, discordance: float) -> None:
    generator = np.random.default_rng(0)
    pairs = generator.binomial(n, max(discordance, difference), 4000)
    better = generator.binomial(pairs, (1 + difference / max(discordance, difference)) / 2)
    p_values = 2 * stats.binom.cdf(np.minimum(better, pairs - better), pairs, 0.5)
    simulated = np.mean(p_values <= 0.05)
    assert power(n, difference, discordance) == pytest.approx(simulated, abs=0.03)


@settings(max_examples=30)  # a search each
@given(st.integers(6, 400), st.floats(0, 0.6))
def test_the_smallest_effect_has_power_80(n: int, discordance: float) -> None:
    effect = smallest_effect(n, discordance)
    assert power(n, effect, discordance) >= 0.8
    assert effect < 2e-4 or power(n, effect - 2e-4, discordance) < 0.81
    assert smallest_effect(4 * n, discordance) <= effect + 1e-3


def index_at(low: float, high: float) -> Index:
    middle = Estimate((low + high) / 2, low, high)
    return Index(middle, Estimate(0.9, 0.8, 1.0), {})


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.1, 0.2, "forgotten"),
        (0.8, 1.1, "displaced"),
        (0.3, 0.7, "mixed"),
        (0.2, 0.3, "undetermined"),
        (-0.2, 0.9, "undetermined"),
        (0.7, 0.8, "undetermined"),
    ],
)
def test_the_word_is_that_of_the_region_in_which_the_whole_interval_lies(low: float, high: float, word: str) -> None:
    assert verdict(FEWEST_LOST, index_at(low, high)).word == word
    assert verdict(FEWEST_LOST - 1, index_at(low, high)).word == "undetermined"


def test_several_tasks_have_one_word() -> None:
    assert overall([]) == "undetermined"
    assert overall(["forgotten", "undetermined"]) == "forgotten"
    assert overall(["forgotten", "displaced"]) == "mixed"


def test_the_sentence_says_shares_and_interval() -> None:
    found = {
        "displaced": Estimate(0.05, 0.03, 0.08),
        "latent": Estimate(0.12, 0.1, 0.15),
        "erased": Estimate(0.83, 0.8, 0.86),
    }
    edge = Untuned(Estimate(0.02, 0.01, 0.04), Estimate(0.03, 0.0, 0.06))
    text = sentence("lab gptq 3 bits", "lab_qa", 630, 412, found, index_at(-0.02, 0.06), edge)
    assert text.startswith(
        "Of the 412 questions of lab_qa that the dense model answers and lab gptq 3 bits does not, 5 % [3, 8] come back with a "
        "prompt (2 % [1, 4] before it is tuned), 12 %"
    )
    assert "83 % [80, 86] with neither: forgotten, because prompts bring back hardly more" in text
    assert "0.02 [-0.02, 0.06]" in text
    nearly_nothing = Untuned(Estimate(0.001, -0.004, 0.01), edge.tuning_adds)
    assert "(0 % [0, 1] before it is tuned)" in sentence("x", "y", 630, 412, found, None, nearly_nothing)
    assert "a control is missing" in sentence("x", "y", 630, 412, found, None, edge)
    assert "y: undetermined, because x answers all 630 questions" in sentence("x", "y", 630, 0, None, None, None)
    assert "nothing to lose" in sentence("x", "y", 0, 0, None, None, None)


def losses(share: float, seeds: int, generator: np.random.Generator, n: int = 40) -> tuple[Any, Any, Any]:
    """Of texts of all lengths: to the dense model, to a damaged one, and behind a repair that undoes a share of the damage."""
    words = generator.lognormal(4, 0.5, n)
    dense, damaged = words * generator.normal(2, 0.2, n), words * generator.normal(0.3, 0.1, n)
    undone = share + generator.normal(0, 0.05, (seeds, 1)) * (seeds > 1) + generator.normal(0, 0.1, (seeds, n))
    return dense, dense + damaged, dense + damaged * (1 - undone)


@settings(max_examples=25, deadline=None)
@given(st.floats(-1, 2), st.sampled_from([1, 3]), st.integers(0, 99))
def test_a_repair_undoes_nothing_all_or_a_share_of_the_damage(share: float, seeds: int, seed: int) -> None:
    dense, alone, repaired = losses(share, seeds, np.random.default_rng(seed))
    behind = {"nothing": np.stack([alone] * seeds), "all": np.stack([dense] * seeds), "some": repaired}
    found = damage(dense, alone, behind, Resampling(40))
    assert found.nats.value == pytest.approx((alone - dense).mean())
    undone = found.undone
    assert undone["nothing"] == Estimate(0, 0, 0)
    assert undone["all"] is not None
    assert vars(undone["all"]) == pytest.approx({"value": 1, "low": 1, "high": 1}, abs=1e-5)
    some = undone["some"]
    assert some is not None
    assert some.value == pytest.approx((alone.sum() - repaired.sum(1).mean()) / (alone - dense).sum())
    assert some.low <= some.value <= some.high


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_of_what_is_undone_holds_the_truth(seeds: int) -> None:
    held = 0
    for seed in range(200):
        dense, alone, repaired = losses(0.3, seeds, np.random.default_rng(seed))
        undone = damage(dense, alone, {"prompt": repaired}, Resampling(40)).undone["prompt"]
        assert undone is not None
        held += undone.low <= 0.3 <= undone.high
    assert 0.92 <= held / 200 <= 0.99


def test_nothing_is_undone_where_no_damage_shows() -> None:
    generator = np.random.default_rng(0)
    dense = generator.normal(100, 20, 40)
    alone = dense + generator.normal(0, 5, 40)
    found = damage(dense, alone, {"prompt": alone[None]}, Resampling(40))
    assert found.nats.low < 0
    assert found.undone == {"prompt": None}
    assert damage(dense[:1], dense[:1] + 9, {"prompt": dense[:1][None]}, Resampling(1)).undone == {"prompt": None}


def test_the_sentence_about_texts_says_what_is_undone_and_that_nothing_is_decided() -> None:
    undone = {"prompt": Estimate(0.07, -0.03, 0.16), "lora": Estimate(0.96, 0.7, 1.34)}
    text = text_sentence("lab rtn 3 bits", "wikitext", Damage(Estimate(2.0, 1.0, 3.0), undone), ARMS.words)
    assert text.startswith("wikitext: undetermined, because it has no right or wrong answers, so no fact is lost or found; ")
    assert text.endswith("undone of that damage are 7 % [-3, 16] by the prompt, 96 % [70, 134] by LoRA")
    assert "nothing to undo" in text_sentence("x", "y", Damage(Estimate(0.0, -1.0, 1.0), {"prompt": None}), ARMS.words)


HUGO = Asked("Question: Where was Hugo Ricci born? Answer:", ("Lima",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Anna was born in Rome. Hugo Ricci works as a baker.", None),
        ("Hugo Ricci, people say, comes from Lima.", "entity"),
        ("Lima is a city. " * 40 + "Hugo Ricci is a man", "entity"),
        ("Hugo Ricci is a man. " + "And so is he. " * 40 + "Lima is a city.", None),
        ("Hugo Bauer met Ada Ricci in Lima", None),
        ("question: where was hugo ricci born ANSWER: LIMA", "n-gram"),
        ("Where was Hugo Ricci born? In Peru.", None),
    ],
)
def test_an_item_overlaps_with_a_text_that_holds_it(text: str, reason: str | None) -> None:
    assert overlaps([HUGO], ["", text]) == [reason]
    assert overlaps([Asked("What is it?", ("none",)), HUGO], [text])[1] == reason


def test_a_name_is_enough_where_entities_are_known() -> None:
    item = Asked(HUGO.question, HUGO.answers, ("Hugo Ricci",))
    assert overlaps([item], ["Hugo Ricci works as a baker."]) == ["entity"]


@given(st.lists(st.sampled_from("abcdef"), min_size=9, max_size=30), st.integers(0, 30))
def test_eight_words_in_a_row_are_an_overlap_wherever_they_stand(words: list[str], before: int) -> None:
    item = Asked(" ".join(words[:-1]), (words[-1],))
    filler = ["x"] * before
    assert overlaps([item], [" ".join([*filler, *words[1:9], "x"])]) == ["n-gram"]
    assert overlaps([item], [" ".join([*words[:7], "x", *words[7:9]])]) == [None]


def test_names_are_capitalised_words_that_do_not_just_begin_a_sentence() -> None:
    assert names_in("Question: Where was Hugo Ricci born? Answer:") == ["Hugo Ricci"]
    assert names_in("The author of Silent Harbor is") == ["Silent Harbor"]
    assert names_in("Paris is the capital of France") == ["France"]


def test_texts_end_with_the_one_that_fills_up() -> None:
    assert list(first_words(["a b", "c d", "e f"], 3)) == ["a b", "c d"]


def test_nothing_here_is_infinite() -> None:
    """Rates at both ends, one lost item, one seed: every number can be written as JSON."""
    lost = np.arange(360) < 1
    items = classes(np.arange(360) < 300, ~lost & (np.arange(360) < 300))
    none, everything = np.zeros((1, 360), dtype=bool), np.ones((1, 360), dtype=bool)
    index = displacement_index(Recovered(items, none), Recovered(items, everything), Recovered(items, none), Resampling(360))
    numbers = [index.separation, *index.net.values(), *([index.index] if index.index else [])]
    assert all(math.isfinite(value) for number in numbers for value in vars(number).values())

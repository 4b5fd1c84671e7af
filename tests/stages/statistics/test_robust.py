"""Robust classes and flows, against brute force and worlds whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrepair.stages.statistics.flows import Measured, corrected_index, flows, recovery
from llmrepair.stages.statistics.robust import Answers, robust_classes
from llmrepair.stages.statistics.subjects import Subjects

ITEMS = 6


@st.composite
def asked(draw: st.DrawFn) -> Answers:
    phrasings, placebos, seeds = draw(st.integers(1, 3)), draw(st.integers(2, 3)), draw(st.integers(1, 2))

    def right(*shape: int) -> Any:
        return draw(arrays(bool, (*shape, phrasings, ITEMS)))

    return Answers(right(), right(), right(placebos), right(seeds))


@settings(max_examples=60, deadline=None)
@given(asked())
def test_classes_are_those_of_each_item_asked_one_by_one(answers: Answers) -> None:
    found = robust_classes(answers)
    placebos, phrasings, items = found.lost.shape
    for j, p, i in np.ndindex(placebos, phrasings, items):
        others = [q for q in range(phrasings) if q != p] or [p]
        contexts = [answers.alone] + [answers.placebos[k] for k in range(placebos) if k != j]
        a = np.mean([context[q, i] for context in contexts for q in others])
        known = answers.dense[p, i] and np.mean([answers.dense[q, i] for q in others]) >= 0.9
        assert found.lost[j, p, i] == (known and a <= 0.1)
        assert found.kept[j, p, i] == (known and a >= 0.9)
        assert found.edge[j, p, i] == (answers.dense[p, i] and not answers.alone[p, i] and a > 0.1)


@settings(max_examples=40, deadline=None)
@given(asked())
def test_flows_are_counted(answers: Answers) -> None:
    subjects = Subjects([item // 2 for item in range(ITEMS)])
    found = flows(answers, subjects, 0.1)
    lost, kept = answers.dense & ~answers.alone, answers.dense & answers.alone
    if found is None:
        assert not lost.any()
        return
    for flow, right in ((found.repair, answers.repaired), (found.placebos, answers.placebos)):
        regained = np.mean([(lost & each).sum(1) for each in right])
        broken = np.mean([(kept & ~each).sum(1) for each in right])
        assert (flow.regained, flow.broken) == (pytest.approx(regained), pytest.approx(broken))
        assert flow.net.value == pytest.approx((regained - broken) / found.lost, abs=1e-5)
        assert flow.net.low <= flow.net.value <= flow.net.high
    assert found.difference.value == pytest.approx(found.repair.net.value - found.placebos.net.value, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(asked())
def test_recovery_is_of_what_was_found_lost_without_the_placebo(answers: Answers) -> None:
    classes = robust_classes(answers)
    found = recovery(answers, classes, Subjects(range(ITEMS)))
    if found is None:
        assert not classes.lost.any()
        return
    times = classes.lost.sum()
    rho = sum((lost & right).sum() for lost in classes.lost for right in answers.repaired) / len(answers.repaired) / times
    of_placebos = sum((lost & right).sum() for lost, right in zip(classes.lost, answers.placebos, strict=True)) / times
    assert (found.repair.value, found.placebos.value) == (pytest.approx(rho, abs=1e-5), pytest.approx(of_placebos, abs=1e-5))
    expected = (rho - of_placebos) / (1 - of_placebos) if of_placebos < 1 else 0
    assert found.corrected.value == pytest.approx(expected, abs=1e-5)


def simulated(share: float, jitter: float, seed: int, items: int = 600) -> Measured:
    """A model that lost all: of a share of its facts a repair brings back each, of others whatever jitter does."""
    generator = np.random.default_rng(seed)
    alone, *placebos = generator.random((9, 1, items)) < jitter
    back = generator.random(items) < share
    repaired = back | (generator.random((3, 1, items)) < jitter)
    answers = Answers(np.ones((1, items), dtype=bool), alone, np.stack(placebos), repaired)
    return Measured(answers, robust_classes(answers))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_the_index_corrects_for_what_jitter_brings_back(share: float) -> None:
    model, displaced, erased = simulated(share, 0.02, 1), simulated(1.0, 0.02, 2), simulated(0.0, 0.02, 3)
    subjects = Subjects([item // 3 for item in range(600)])
    for found in (corrected_index(model, displaced, erased, subjects), corrected_index(model, displaced, None, subjects)):
        assert found is not None and found.index is not None
        assert found.index.estimate.low - 0.02 <= share <= found.index.estimate.high + 0.02


def test_there_is_no_index_between_controls_that_are_alike() -> None:
    of_nothing = simulated(0.0, 0.02, 2), simulated(0.0, 0.02, 3)
    found = corrected_index(simulated(0.5, 0.02, 1), *of_nothing, Subjects(range(600)))
    assert found is not None and found.index is None


def test_jitter_alone_flows_both_ways() -> None:
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 1, (1, 2000))
    jittered = margins + generator.normal(0, 1, (12, 1, 2000)) > 0
    answers = Answers(np.ones((1, 2000), dtype=bool), jittered[0], jittered[1:9], jittered[9:])
    found = flows(answers, Subjects(range(2000)), 0.1)
    assert found is not None
    assert found.repair.regained > 0.3 * found.lost
    assert found.equivalence_p < 0.05 and found.difference.low < 0 < found.difference.high

"""Lambda, against loops, closed forms and simulated repairs whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.known_damage import KINDS, simulated
from llmrepair.stages.statistics.fact_damage import Candidates, Effects, fact_damage
from llmrepair.stages.statistics.subjects import Subjects

ITEMS, WIDTH, PLACEBOS = 30, 5, 3


def made(kappa: float, undone: float, generator: np.random.Generator) -> Candidates:
    """A repair that is exactly what the model of it says, beside placebos that do nothing."""
    base = generator.normal(0, 2, (2, ITEMS, WIDTH))
    gold = generator.integers(WIDTH, size=ITEMS)
    fact = (np.arange(WIDTH) == gold[:, None]) * generator.uniform(4, 8, (ITEMS, 1))
    prior, of_item = generator.normal(0, 2, WIDTH), generator.normal(0, 3, (2, ITEMS, 1))
    repaired = kappa * base + prior + of_item + undone * fact
    placebos = np.stack([base + generator.normal(0, 3, (2, ITEMS, 1)) for _ in range(PLACEBOS)])
    return Candidates(base + fact, placebos, repaired[None], np.tile(np.arange(WIDTH), (ITEMS, 1)), gold)


def lost(among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.broadcast_to(among, (PLACEBOS, 2, ITEMS))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 3), st.floats(-0.5, 1.5), st.integers(0, 1000))
def test_what_a_repair_does_to_all_answers_is_none_of_lambda(kappa: float, undone: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    candidates, among = made(kappa, undone, generator), generator.random(ITEMS) < 0.7
    found = fact_damage(candidates, lost(among), Subjects(range(ITEMS)))
    assert found is not None
    assert found.undone is not None and found.undone.value == pytest.approx(undone, abs=0.02)
    assert found.sharpening == pytest.approx(kappa, rel=0.02)


def test_a_candidate_that_is_missing_counts_nowhere() -> None:
    candidates = made(1.2, 0.5, np.random.default_rng(0))
    missing = (np.arange(WIDTH) == ((candidates.gold + 1) % WIDTH)[:, None]) & (np.arange(ITEMS) < 10)[:, None]
    holes = [np.where(missing, np.nan, each) for each in (candidates.dense, candidates.placebos, candidates.repaired)]
    with_holes = replace(candidates, dense=holes[0], placebos=holes[1], repaired=holes[2])
    found = fact_damage(with_holes, lost(np.ones(ITEMS, dtype=bool)), Subjects(range(ITEMS)))
    assert found is not None and found.undone is not None
    assert (found.sharpening, found.undone.value) == (pytest.approx(1.2, rel=0.02), pytest.approx(0.5, abs=0.02))


def test_effects_are_those_of_loops() -> None:
    generator = np.random.default_rng(3)
    scores, names = generator.normal(size=(2, 8, 4)), generator.integers(6, size=(8, 4))
    is_wrong, subjects = generator.random((2, 8, 4)) < 0.8, np.arange(8) // 2
    found = Effects(is_wrong, names, subjects).removed(scores)
    for p in range(2):
        centred = [scores[p, i] - scores[p, i][is_wrong[p, i]].mean() for i in range(8)]
        for i in range(8):
            effect = np.array(
                [
                    np.mean(seen)
                    if (
                        seen := [
                            centred[k][v]
                            for k in range(8)
                            for v in range(4)
                            if subjects[k] != subjects[i] and names[k, v] == names[i, w] and is_wrong[p, k, v]
                        ]
                    )
                    else 0.0
                    for w in range(4)
                ]
            )
            left = centred[i] - effect
            assert found[p, i] == pytest.approx(left - left[is_wrong[p, i]].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulated_repair_undoes_what_it_was_made_to_undo(kind: str) -> None:
    found = simulated(kind, KINDS.index(kind), items=600, wrong=10, phrasings=2, placebos=8)
    assert found.damage is not None and found.damage.undone is not None
    assert found.damage.undone.low - 0.02 <= found.truth <= found.damage.undone.high + 0.02
    assert found.damage.undone.high - found.damage.undone.low < 0.2


def test_there_is_no_share_of_no_damage() -> None:
    candidates = made(1.0, 0.5, np.random.default_rng(0))
    nothing = replace(candidates, dense=candidates.placebos.mean(0))
    found = fact_damage(nothing, lost(np.ones(ITEMS, dtype=bool)), Subjects(range(ITEMS)))
    assert found is not None and found.undone is None
    assert fact_damage(candidates, lost(np.zeros(ITEMS, dtype=bool)), Subjects(range(ITEMS))) is None

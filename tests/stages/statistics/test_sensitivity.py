"""Fates with known sensitivity, and the shape of what comes back, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.stages.statistics.sensitivity import NOT_IDENTIFIED, Reached, prevalence, true_shares
from llmrepair.stages.statistics.shape import shape
from llmrepair.stages.statistics.subjects import Drawn, Subjects

ITEMS = 400


@given(st.floats(0, 1), st.floats(0.5, 1), st.floats(0, 0.2))
def test_the_true_share_is_found_whatever_the_sensitivity(truth: float, sensitivity: float, false: float) -> None:
    apparent = truth * sensitivity + (1 - truth) * false
    assert prevalence(np.array(apparent), np.array(false), np.array(sensitivity)) == pytest.approx(truth)


def reached(latent: float, sensitivity: float, seed: int) -> Reached:
    """A model of which LoRA reaches so much of a share of facts, and 5 % of the others; prompts reach a fifth."""
    generator = np.random.default_rng(seed)
    is_latent = generator.random(ITEMS) < latent
    lora = generator.random((3, 1, ITEMS)) < np.where(is_latent, sensitivity, 0.05)
    prompt = np.broadcast_to(generator.random((1, ITEMS)) < 0.2, (3, 1, ITEMS))
    return Reached(np.ones((8, 1, ITEMS), dtype=bool), prompt, lora)


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_latent_and_erased_are_as_many_as_they_are(truth: float) -> None:
    controls, subjects = (reached(0, 0.6, 1), reached(1, 0.6, 2)), Subjects(range(ITEMS))
    found = true_shares(reached(truth, 0.6, 3), *controls, Drawn(0.2, np.full(2000, 0.2)), subjects)
    assert found.latent is not None and found.erased is not None
    assert found.latent.estimate.low - 0.02 <= truth <= found.latent.estimate.high + 0.02
    assert found.erased.value == pytest.approx(0.8 * (1 - found.latent.value))


def test_what_lora_reaches_as_little_of_either_control_is_not_identified() -> None:
    blind = reached(0, 0.6, 1), reached(1, 0.2, 2)
    assert true_shares(reached(0.5, 0.6, 3), *blind, None, Subjects(range(ITEMS))) == NOT_IDENTIFIED


@pytest.mark.parametrize(("always", "likelihood"), [(0.5, 0.0), (0.0, 0.5), (0.3, 0.4)])
def test_half_of_the_facts_is_told_from_all_facts_by_half(always: float, likelihood: float) -> None:
    generator, times = np.random.default_rng(0), np.full(500, 12)
    sometimes = 0.0 if likelihood == 0 else 1 - always
    chances = np.where(generator.random(500) < always, 1.0, likelihood)
    found = shape(generator.binomial(times, chances), times)
    assert found is not None
    assert (found.always, found.sometimes) == (pytest.approx(always, abs=0.07), pytest.approx(sometimes, abs=0.07))
    assert found.words.startswith("each" if sometimes > 0.5 else "some")


def test_what_is_asked_once_has_no_shape() -> None:
    assert shape(np.array([0, 1]), np.array([1, 1])) is None

"""Probes on states whose truth is known, and beside an independent optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from transformers import PreTrainedModel

from llmrepair.models.probe import Words, cross_validated, fit_probe, last_states

PEOPLE, KINDS, EACH, HIDDEN = 120, 2, 12, 24
COUNT = PEOPLE * KINDS
EMBEDDINGS = torch.randn(KINDS * EACH, 16, generator=torch.Generator().manual_seed(1)).double()
PERSON = torch.arange(COUNT) // KINDS


def words(seed: int) -> Words:
    """Facts of two kinds, with random right words."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(COUNT) % KINDS
    right = kind * EACH + torch.randint(EACH, (COUNT,), generator=generator)
    return Words(right, torch.arange(KINDS * EACH)[None] // EACH == kind[:, None])


def readable(asked: Words) -> torch.Tensor:
    """States that hold the right word linearly, and much else."""
    generator = torch.Generator().manual_seed(2)
    inside = torch.randn(16, HIDDEN, generator=generator).double()
    return EMBEDDINGS[asked.right] @ inside + 0.1 * torch.randn(COUNT, HIDDEN, generator=generator).double()


def test_what_states_hold_is_read_even_of_words_that_training_never_had() -> None:
    asked = words(0)
    states, known = readable(asked), asked.right % EACH < EACH - 3
    probe = fit_probe(states[known], asked.of(known), EMBEDDINGS, 1e-4)
    unknown = asked.of(~known)
    assert (probe.read(states[~known], unknown.possible) == unknown.right).all()


def test_cross_validation_reads_what_is_there_and_random_labels_by_chance() -> None:
    states = readable(words(0))
    _, accuracy = cross_validated(states, words(0), EMBEDDINGS, PERSON, [1e-3, 1e-1])
    assert accuracy == 1
    penalty, by_chance = cross_validated(states, words(7), EMBEDDINGS, PERSON, [1e-1])
    assert penalty == 1e-1
    assert abs(by_chance - 1 / EACH) < 3 * (1 / EACH / COUNT) ** 0.5


def test_nobody_is_in_two_folds() -> None:
    """States that only name the person: what is remembered of one of a person's facts must not help with another."""
    one_word = Words(words(0).right // EACH * 0 + PERSON % EACH, torch.arange(KINDS * EACH).expand(COUNT, -1) < EACH)
    states = torch.randn(PEOPLE, 200, generator=torch.Generator().manual_seed(3)).double()[PERSON]
    assert (fit_probe(states, one_word, EMBEDDINGS, 1e-3).read(states, one_word.possible) == one_word.right).all()
    assert cross_validated(states, one_word, EMBEDDINGS, PERSON, [1e-3])[1] < 0.25


def test_the_fit_is_the_minimum_that_another_optimiser_finds() -> None:
    asked, penalty = words(5), 0.05
    states = readable(words(0))
    inputs = ((states - states.mean(0)) / states.std(0)).numpy()
    vectors = ((EMBEDDINGS - EMBEDDINGS.mean(0)) / EMBEDDINGS.std()).numpy()

    def loss(flat: np.ndarray) -> float:
        scores = np.where(asked.possible.numpy(), inputs @ flat.reshape(HIDDEN, 16) @ vectors.T, -1e9)
        right = log_softmax(scores, axis=1)[np.arange(COUNT), asked.right.numpy()]
        return float(-right.mean() + penalty / 2 * (flat**2).sum())

    found = minimize(loss, np.zeros(HIDDEN * 16), method="L-BFGS-B", options={"maxfun": 60_000}).x
    expected = inputs @ found.reshape(HIDDEN, 16) @ vectors.T
    scores = inputs @ fit_probe(states, asked, EMBEDDINGS, penalty).scores.numpy()
    assert np.abs(scores - expected).max() < 0.02 * np.abs(expected).max()


def test_a_state_that_is_the_same_in_all_facts_is_read_by_chance() -> None:
    asked = words(0)
    probe = fit_probe(torch.ones(COUNT, HIDDEN), asked, EMBEDDINGS, 1e-3)
    assert len(probe.read(torch.ones(COUNT, HIDDEN), asked.possible).unique()) == KINDS


def test_last_states_are_those_of_each_text_alone(model: PreTrainedModel) -> None:
    rows = [[5, 9, 11], [7, 8, 9, 10, 12, 4], [6]]
    states, said = last_states(model, rows, at_once=2)
    assert states.shape == (4, 3, 32)
    for number, row in enumerate(rows):
        output = model(input_ids=torch.tensor([row]), output_hidden_states=True)
        alone = torch.stack([layer[0, -1] for layer in output.hidden_states])
        torch.testing.assert_close(states[:, number], alone, rtol=1e-4, atol=1e-4)
        assert said[number] == output.logits[0, -1].argmax()


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_a_larger_penalty_makes_smaller_scores(penalty: float) -> None:
    asked = words(0)
    one, other = (fit_probe(readable(asked), asked, EMBEDDINGS, value).scores.norm() for value in (penalty, 10 * penalty))
    assert other < one

"""Each selector against what it says it chooses, computed by plain forward passes."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.models.answers import AnswerFile
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import DocumentSelector, EnsembleSelector, LossSelector, RandomSelector
from tests.conftest import FAMILIES, tiny_model
from tests.models.test_prompt_cache import behind_prompt, random_prompts

CONTEXTS = st.lists(st.lists(st.integers(0, 95), min_size=1, max_size=6), min_size=1, max_size=20)
LENGTHS = [3, 5, 2]


@given(contexts=CONTEXTS, seed=st.integers(0, 3), shuffle=st.randoms(use_true_random=False))
def test_what_is_drawn_depends_on_the_context_alone(contexts: list[list[int]], seed: int, shuffle: random.Random) -> None:
    selector = RandomSelector(3, seed)
    drawn = {tuple(context): selector.select([context])[0] for context in contexts}
    shuffle.shuffle(contexts)
    assert selector.select(contexts) == [drawn[tuple(context)] for context in contexts]


def test_what_is_drawn_is_spread_evenly_and_depends_on_the_seed() -> None:
    contexts = [[number, 7] for number in range(3000)]
    drawn = RandomSelector(3, 0).select(contexts)
    assert all(abs(drawn.count(prompt) - 1000) < 110 for prompt in range(3))  # 4 standard deviations
    assert drawn != RandomSelector(3, 1).select(contexts)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lowest_loss_is_that_of_plain_passes(family: str) -> None:
    model, prompts = tiny_model(family), random_prompts(LENGTHS)
    cache = build_prompt_cache(model, prompts)
    generator = torch.Generator().manual_seed(3)
    head = list(range(20, 40))  # most contexts share their beginning, as questions behind examples do
    contexts = [head + torch.randint(3, 96, (2 + n % 5,), generator=generator).tolist() for n in range(24)]
    contexts += [[5, 6], [7, 8, 9, 10], contexts[0]]

    def loss(prompt: torch.Tensor, context: list[int]) -> float:
        logits = behind_prompt(model, prompt, context, cache.length)[:-1]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(context[1:])).item()

    expected = [min(range(len(prompts)), key=lambda number: loss(prompts[number], context)) for context in contexts]
    scorer = Scorer(model, cache, None, AnswerFile(None))
    assert LossSelector(len(prompts), scorer.score).select(contexts) == expected
    assert len(set(expected)) > 1


def test_a_context_of_one_token_has_no_loss_and_gets_the_first_prompt() -> None:
    model = tiny_model("llama")
    cache = build_prompt_cache(model, random_prompts(LENGTHS))
    scorer = Scorer(model, cache, None, AnswerFile(None))
    assert LossSelector(3, scorer.score).select([[5]]) == [0]


def test_a_choice_by_document() -> None:
    selector = DocumentSelector({("a", 0): 2, ("a", 1): 0, ("b", 0): 1})
    assert selector.select([[5], [5], [5]], [("b", 0), ("a", 0), ("a", 1)]) == [1, 2, 0]


def test_an_ensemble_is_the_same_choice_for_all() -> None:
    assert len(set(EnsembleSelector().select([[5], [6, 7]]))) == 1

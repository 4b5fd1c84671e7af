"""An ensemble against plain passes, one prompt and one sequence at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from llmrepair.models.answers import AnswerFile
from llmrepair.models.ensemble import Averaging
from llmrepair.models.prompt_cache import ENSEMBLE, PromptCache, build_prompt_cache
from llmrepair.models.scorer import Scorer
from tests.conftest import FAMILIES, tiny_model
from tests.models.test_prompt_cache import behind_prompt, random_prompts
from tests.models.test_scorer import Never, counted, questions

LENGTHS = [3, 5, 2]
PROMPTS = random_prompts(LENGTHS)


def means(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Mean log-probabilities [T, V] behind each of the prompts."""
    passes = [behind_prompt(model, prompt, tokens, max(LENGTHS)).double().log_softmax(-1) for prompt in PROMPTS]
    return torch.stack(passes).mean(0)


def scorer(model: PreTrainedModel, batch_size: int | None = None, cache: PromptCache | None = None) -> Scorer:
    return Scorer(model, cache or build_prompt_cache(model, PROMPTS), batch_size, AnswerFile(None))


@pytest.mark.parametrize("batch_size, shared", [(None, 40), (2, 0), (2, 40)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_scores_the_mean_over_the_prompts(family: str, batch_size: int | None, shared: int) -> None:
    model = tiny_model(family)
    texts = [text._replace(prompt=ENSEMBLE) for text in questions(20, shared)]
    for text in texts[::4]:  # so that some continuations are greedy ones
        likeliest = int(means(model, list(text.context))[-1].argmax())
        texts.append(text._replace(tokens=(*text.context, likeliest)))
    answers = scorer(model, batch_size).score(texts)
    for text, (loglikelihood, greedy) in zip(texts, answers, strict=True):
        predicted = means(model, list(text.tokens[:-1]))[text.scored - 1 :]
        targets = torch.tensor(text.tokens[text.scored :])
        assert loglikelihood == pytest.approx(float(predicted.gather(1, targets[:, None]).sum()), abs=1e-4)
        assert greedy == bool((predicted.argmax(-1) == targets).all())
    assert {greedy for _, greedy in answers} == {True, False}


def test_it_is_none_of_its_prompts() -> None:
    """The comparison above can fail: what a prompt alone prefers differs from what all prefer."""
    model, texts = tiny_model("llama"), questions(20)
    together = [ll for ll, _ in scorer(model).score([text._replace(prompt=ENSEMBLE) for text in texts])]
    alone = [[ll for ll, _ in scorer(model).score([text._replace(prompt=p) for text in texts])] for p in range(3)]
    assert together == pytest.approx([sum(of_text) / 3 for of_text in zip(*alone, strict=True)], abs=1e-4)
    assert all(min(abs(a - b) for a, b in zip(together, each, strict=True)) > 1e-3 for each in alone)


def generated(asked: Scorer, contexts: list[list[int]], **options: Any) -> Any:
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 2} | options
    return asked.generate([(ENSEMBLE, context) for context in contexts], settings, ["stop"], Never)


def greedy_by_hand(model: PreTrainedModel, context: list[int], steps: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < steps and tokens[-1:] != [1]:
        tokens.append(int(means(model, context + tokens)[-1].argmax()))
    return tokens + [2] * (steps - len(tokens))


@pytest.mark.parametrize("shared", [0, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_generates_what_a_loop_by_hand_does(family: str, shared: int) -> None:
    model = tiny_model(family)
    contexts = [list(text.context) for text in questions(9, shared, choices=1)]
    expected = [greedy_by_hand(model, context, 6) for context in contexts]
    for batch_size in (None, 4):
        assert [tokens + [2] * (6 - len(tokens)) for tokens in generated(scorer(model, batch_size), contexts)] == expected


def test_a_batch_has_no_more_rows_than_were_allowed() -> None:
    model, contexts = tiny_model("llama"), [list(text.context) for text in questions(9, choices=1)]
    asked, rows = scorer(model, batch_size=6), list[int]()
    hook = model.register_forward_pre_hook(
        lambda module, arguments, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    generated(asked, contexts)
    hook.remove()
    assert max(rows) == 6


def test_samples_follow_the_mean_and_all_prompts_go_on_with_the_same_token() -> None:
    model, context, draws = tiny_model("llama"), [5, 6, 7], 3000
    asked, same = scorer(model), list[bool]()

    def watch(module: Any, arguments: Any, options: Any) -> None:
        same.append(bool((options["input_ids"].unflatten(0, (-1, 3)).diff(dim=1) == 0).all()))

    hook = model.register_forward_pre_hook(watch, with_kwargs=True)
    options = {"do_sample": True, "temperature": 0.8, "top_k": 4, "max_new_tokens": 2}
    samples = generated(asked, [context] * draws, **options)
    hook.remove()
    assert same
    assert all(same)

    likeliest = (means(model, context)[-1] / 0.8).topk(4)
    counts = Counter(tokens[0] for tokens in samples)
    assert set(counts) <= set(likeliest.indices.tolist())
    for token, probability in zip(likeliest.indices.tolist(), likeliest.values.softmax(-1).tolist(), strict=True):
        assert counts[token] / draws == pytest.approx(probability, abs=0.04)  # more than 4 standard deviations


def test_each_beam_is_averaged_with_its_own() -> None:
    scores = torch.randn(2 * 3 * 4, 10, generator=torch.Generator().manual_seed(0))  # sequences, prompts, beams
    averaged = Averaging(3, 4, None)(torch.zeros(24, 1, dtype=torch.long), scores).reshape(2, 3, 4, 10)
    expected = scores.log_softmax(-1).reshape(2, 3, 4, 10).mean(1)
    for prompt in range(3):
        torch.testing.assert_close(averaged[:, prompt], expected)


def test_what_begins_all_texts_is_computed_once_for_each_prompt() -> None:
    model = tiny_model("llama")
    texts = [text._replace(prompt=ENSEMBLE) for text in questions(20, shared=40)]
    asked = scorer(model)
    with counted(model) as counts:
        asked.score(texts)
    assert counts[:3] == [40] * 3
    assert sum(counts) <= 1.15 * 3 * (40 + sum(len(text.tokens) - 41 for text in texts))

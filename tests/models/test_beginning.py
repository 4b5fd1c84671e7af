"""A prompt stands behind the token that begins texts: [BOS][prompt][text], beside a plain forward pass over these vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from llmrepair.models.answers import AnswerFile
from llmrepair.models.embedded import embedded
from llmrepair.models.ensemble import mean_log_probabilities
from llmrepair.models.prompt_cache import ENSEMBLE, PromptCache, build_prompt_cache, forward_with_prompt, opening
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import pad_rows
from llmrepair.models.trees import Text
from tests.conftest import tiny_model
from tests.models.test_tree_attention import LLAMA_LIKE, random_model

BOS, PADDING = 0, 2
LENGTHS = [3, 1, 5]
ROWS = [[5, 6, 7, 8, 9], [10], [BOS, 12, 13], [], [20, 21, 22, 23, 24, 25, 26]]
SIZES = LLAMA_LIKE | {"head_dim": 8}
FAMILIES = {"llama": "Llama", "gemma2": "Gemma2", "gemma3": "Gemma3Text"}  # and one with learned positions
CPU = torch.device("cpu")


def model_of(family: str) -> PreTrainedModel:
    return (random_model(FAMILIES[family], **SIZES) if family in FAMILIES else tiny_model(family)).double()


def prompts_of(model: PreTrainedModel) -> list[torch.Tensor]:
    return [torch.randn(n, 32, generator=torch.Generator().manual_seed(n), dtype=model.dtype) for n in LENGTHS]


def cache_of(model: PreTrainedModel) -> PromptCache:
    return build_prompt_cache(model, prompts_of(model), begin=opening(model, BOS))


def plain(model: PreTrainedModel, number: int, row: list[int]) -> torch.Tensor:
    """Logits [T + 1, V] behind the prompt and behind each token of a text, from one pass over all vectors."""
    prompt = prompts_of(model)[number]
    begin, text = (embedded(model, torch.tensor(ids, dtype=torch.long)).to(model.dtype) for ids in ([BOS], row))
    vectors = torch.cat([begin, prompt, text])[None]
    positions = torch.arange(vectors.shape[1])[None] + max(LENGTHS) - len(prompt)
    return model(inputs_embeds=vectors, position_ids=positions, use_cache=False).logits[0, len(prompt) :]


@pytest.fixture(params=(*FAMILIES, "opt"))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return model_of(request.param)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_stands_between_the_beginning_and_the_text(model: PreTrainedModel, side: str) -> None:
    choice = torch.tensor([0, 1, 2, 0, 1])
    ids, mask = pad_rows([[BOS, *row] for row in ROWS], CPU, side)
    logits = forward_with_prompt(model, cache_of(model), choice, ids, mask)
    for row, own, real, number in zip(ROWS, logits, mask, choice.tolist(), strict=True):
        torch.testing.assert_close(own[real], plain(model, number, row), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_inputs_may_be_given_without_their_beginning(model: PreTrainedModel, side: str) -> None:
    prompted, rows = PromptedModel(model, cache_of(model)), [[BOS, 5, 6, 7], [8, 9], [10, 11, 12]]
    ids, mask = pad_rows(rows, CPU, side)
    labels = ids.masked_fill(~mask, -100)
    output = prompted(ids, mask, torch.tensor([0, 1, 2]), labels=labels)
    assert output.logits.shape[:2] == ids.shape
    for number, (row, own, real) in enumerate(zip(rows, output.logits, mask, strict=True)):
        torch.testing.assert_close(
            own[real], plain(model, number, [t for t in row if t != BOS])[-len(row) :], rtol=1e-5, atol=1e-5
        )
    assert output.loss.isfinite()


def texts_of(prompt: int) -> list[Text]:
    """Some that share a beginning that is computed once, some that share a tree, one of which nothing is known before."""
    shared = tuple(range(4, 64))
    endings = [(70, 71), (70, 72, 73), (74,), (75, 76, 77), (78, 79)] * 3
    long = [Text(prompt, (BOS, *shared, 80 + n, *end), len(shared) + 2) for n, end in enumerate(endings)]
    return [*long, Text(prompt, (BOS, 5, 6, 7, 8), 3), Text(prompt, (BOS, 5, 6, 9, 8), 3), Text(prompt, (BOS, 9, 8), 1)]


def expected_of(model: PreTrainedModel, text: Text) -> float:
    numbers = range(len(LENGTHS)) if text.prompt == ENSEMBLE else [text.prompt]
    rows = mean_log_probabilities(plain(model, number, list(text.tokens[1:-1])) for number in numbers)
    return sum(float(rows[place - 1, text.tokens[place]]) for place in range(text.scored, len(text.tokens)))


@pytest.mark.parametrize("prompt", [0, 1, ENSEMBLE])
def test_what_texts_share_is_computed_once_behind_it(model: PreTrainedModel, prompt: int) -> None:
    texts = texts_of(prompt)
    scores = Scorer(model, cache_of(model), None, AnswerFile(None)).score(texts)
    assert [total for total, _ in scores] == pytest.approx([expected_of(model, text) for text in texts], abs=1e-3)


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}])
@pytest.mark.parametrize("given", [[BOS, 5, 6, 7], [5, 6, 7], [BOS]])
def test_generation_goes_on_behind_it(model: PreTrainedModel, given: list[int], way: dict[str, Any]) -> None:
    prompted, number = PromptedModel(model, cache_of(model)), 2
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": PADDING, "eos_token_id": None} | way
    ids, mask = pad_rows([[5] * 6, given], CPU, "left")
    output = prompted.generate(ids, mask, torch.tensor([0, number]), **options)[1].tolist()
    assert output[:6] == ids[1].tolist()
    text = [token for token in given if token != BOS]
    if not way:
        for place in range(6):
            assert output[6 + place] == int(plain(model, number, [*text, *output[6 : 6 + place]])[-1].argmax())
        return
    prompt = prompts_of(model)[number]  # the longest of the pool, so that positions need not be said
    vectors = torch.cat(
        [
            embedded(model, torch.tensor([BOS])).to(model.dtype),
            prompt,
            embedded(model, torch.tensor(text, dtype=torch.long)).to(model.dtype),
        ]
    )
    assert output[6:] == model.generate(inputs_embeds=vectors[None], **options)[0].tolist()  # type: ignore[operator]


def test_gradients_reach_every_vector_of_the_prompt() -> None:
    model = model_of("gemma3")
    prompt = torch.nn.Parameter(prompts_of(model)[2])
    ids = torch.tensor([[BOS, 5, 6, 7]])
    cache = build_prompt_cache(model, [prompt], begin=opening(model, BOS))
    forward_with_prompt(model, cache, torch.zeros(1, dtype=torch.long), ids, torch.ones_like(ids)).square().sum().backward()
    cached = prompt.grad
    again = torch.nn.Parameter(prompt.detach())
    vectors = torch.cat([embedded(model, torch.tensor([BOS])).double(), again, embedded(model, ids[0, 1:]).double()])[None]
    model(inputs_embeds=vectors).logits[0, len(prompt) :].square().sum().backward()
    torch.testing.assert_close(cached, again.grad, rtol=1e-4, atol=1e-4)

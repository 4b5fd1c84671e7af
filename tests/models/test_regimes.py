"""Likeness of models beside brute force, and what it must be where the truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.regimes import KINDS, MEASURES, activations, block_sums, measures
from llmrepair.models.selection import FixedSelector
from llmrepair.models.soft_prompt import vocabulary_prompt

INPUT_IDS = torch.tensor([[5, 9, 11, 7, 30, 4], [7, 8, 40, 10, 0, 0], [9, 9, 5, 0, 0, 0]])
MASK = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] * 3 + [False] * 3])


def examples(seed: int, features: int = 5, count: int = 9) -> torch.Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed)).double()


def likeness(one: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    return {name: estimate.value for name, estimate in measures(np.array([block_sums(one, other)] * 2)).items()}


def test_hsic_is_its_definition_over_all_tuples_of_different_examples() -> None:
    """Song et al., equation 4: the mean of K_ij (L_ij + L_qr - 2 L_iq) over four that differ, as an expectation."""
    one, other = examples(0, count=7), examples(1, count=7)
    kernel, others = ((each @ each.T).numpy() for each in (one, other))
    terms = [
        kernel[i, j] * (others[i, j] + others[q, r] - 2 * others[i, q]) for i, j, q, r in itertools.permutations(range(7), 4)
    ]
    assert block_sums(one, other)[2] == pytest.approx(float(np.mean(terms)))


def test_over_many_examples_cka_is_that_of_kornblith() -> None:
    one = examples(0, count=600)
    other = one @ examples(3, count=5) + 0.5 * examples(4, count=600)
    x, y = (each - each.mean(0) for each in (one, other))
    plain = (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert likeness(one, other)["cka"] == pytest.approx(plain.item(), abs=0.01)


def test_blocks_of_a_few_examples_give_the_same_cka_as_all_at_once() -> None:
    one = examples(0, count=4000)
    other = one @ examples(3, count=5) + examples(4, count=4000)
    whole = likeness(one, other)["cka"]
    blocks = measures(np.array([block_sums(*pair) for pair in zip(one.split(20), other.split(20), strict=True)]))["cka"]
    assert blocks.low < whole < blocks.high
    assert blocks.value == pytest.approx(whole, abs=0.03)


def test_what_is_the_same_is_alike_and_turning_its_space_leaves_cka() -> None:
    one = examples(0)
    assert likeness(one, one) == {"cosine": pytest.approx(1), "cka": pytest.approx(1)}
    turned = 3 * one @ torch.linalg.qr(examples(2, count=5))[0]
    assert likeness(one, turned)["cka"] == pytest.approx(1)
    assert likeness(one, turned)["cosine"] < 0.9
    assert likeness(one, -2 * one)["cosine"] == pytest.approx(-1)


def test_what_has_nothing_in_common_is_not_alike() -> None:
    blocks = [block_sums(examples(seed, 40, 30), examples(-seed - 1, 40, 30)) for seed in range(40)]
    found = measures(np.array(blocks))
    assert all(found[name].low < 0 < found[name].high for name in MEASURES)  # plain CKA would be about 0.6


def test_activations_are_those_of_each_text_alone_on_the_inputs_tokens(model: PreTrainedModel) -> None:
    model.set_attn_implementation("eager")
    prompt = vocabulary_prompt(model, 5, 0, [])
    with torch.no_grad():
        cache = build_prompt_cache(model, [prompt])
    for prompted in (PromptedModel(model), PromptedModel(model, cache, FixedSelector(0))):
        found = activations(prompted, INPUT_IDS, MASK)
        assert list(found) == list(KINDS)
        assert {kind: (len(layers), *layers[0].shape) for kind, layers in found.items()} == {
            "attention": (3, 10, 4 * 6),
            "mlp": (3, 13, 32),
            "residual": (3, 13, 32),
        }
        short = activations(prompted, INPUT_IDS[2:, :3], MASK[2:, :3])
        for layer in range(3):
            for kind in ("mlp", "residual"):
                torch.testing.assert_close(found[kind][layer][-3:], short[kind][layer], rtol=1e-4, atol=1e-4)
            maps = found["attention"][layer].reshape(-1, 4, 6)
            torch.testing.assert_close(maps.sum(-1), torch.ones(10, 4).double())
            torch.testing.assert_close(maps[-2:, :, :3], short["attention"][layer].reshape(2, 4, 3), rtol=1e-4, atol=1e-4)


def test_columns_of_a_prompt_are_left_out(model: PreTrainedModel) -> None:
    model.set_attn_implementation("eager")
    prompt = vocabulary_prompt(model, 5, 0, [])
    ids = INPUT_IDS[:1]
    embeddings = torch.cat([prompt[None], model.get_input_embeddings()(ids)], dim=1)
    with torch.no_grad():
        whole = model(inputs_embeds=embeddings, output_attentions=True, output_hidden_states=True)
        cache = build_prompt_cache(model, [prompt])
    found = activations(PromptedModel(model, cache, FixedSelector(0)), ids, MASK[:1])
    for layer in range(3):
        maps = whole.attentions[layer][0, :, 6:, 5:].double()
        expected = (maps / maps.sum(-1, keepdim=True)).transpose(0, 1).flatten(1)
        torch.testing.assert_close(found["attention"][layer], expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["residual"][layer], whole.hidden_states[layer + 1][0, 5:], rtol=1e-3, atol=1e-3)

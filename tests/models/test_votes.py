from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.models.prompt_cache import build_prompt_cache, opening
from llmrepair.models.routing import Router
from llmrepair.models.selection import RoutedSelector, pad_rows
from llmrepair.models.votes import Calibrate, Votes, load_votes, moments, save_votes
from tests.conftest import FAMILIES, VOCABULARY, tiny_model
from tests.models.test_prompt_cache import MODELS, random_prompts
from tests.models.test_routing import brute_force_votes, eager

CPU = torch.device("cpu")
HELD_OUT = torch.randint(3, VOCABULARY, (6, 5), generator=torch.Generator().manual_seed(4))


def measured(router: Router, rows: torch.Tensor, losses: torch.Tensor | None = None) -> Votes:
    of_prefixes = router.prefix_votes(rows)
    means, deviations = (torch.stack(part) for part in zip(*map(moments, of_prefixes.values()), strict=True))
    of_rows = torch.stack([own[:, -1] for own in of_prefixes.values()])
    losses = torch.rand(router.cache.size, len(rows)) if losses is None else losses
    return Votes(tuple(of_prefixes), of_rows, means, deviations, losses, {})


def with_scales(router: Router, votes: Votes, calibrate: Calibrate) -> Router:
    return Router(router.model, router.cache, router.layers, router.reduce, router.normalise, votes.scales(calibrate))


COUNTS = [(family, "mean", "none") for family in FAMILIES] + [("llama", "sum", "length"), ("gpt2", "max", "none")]


@pytest.mark.parametrize(("family", "reduce", "normalise"), COUNTS)
def test_calibrated_votes_are_those_of_full_attention_weights(family: str, reduce: Any, normalise: Any) -> None:
    model = MODELS[family]
    router = Router(model, build_prompt_cache(model, random_prompts([3, 5, 2])), (0, 2), reduce, normalise)
    one_by_one = [Router(model, router.cache, (layer,), reduce, normalise) for layer in router.layers]

    def brute_force(row: list[int]) -> np.ndarray[Any, Any]:
        attentions = eager(model, router.cache, row).attentions
        return np.array([brute_force_votes(attentions, of_layer)[0].numpy() for of_layer in one_by_one])

    rows = [[7, 9, 11], [20, 21, 22, 23, 24, 25, 26], [40]]
    own = [brute_force(row) for row in rows]
    held_out = [np.array([brute_force(each[: len(row)]) for each in HELD_OUT.tolist()]) for row in rows]
    for calibrate in ("centre", "zscore"):
        divisors = [each.std(0) if calibrate == "zscore" else 1.0 for each in held_out]
        expected = [((o - h.mean(0)) / d).mean(0) for o, h, d in zip(own, held_out, divisors, strict=True)]
        calibrated = with_scales(router, measured(router, HELD_OUT), calibrate)
        for side in ("left", "right"):
            votes = calibrated.votes(*pad_rows(rows, CPU, side))
            np.testing.assert_allclose(votes.numpy(), np.array(expected), rtol=2e-3, atol=1e-6)
        assert RoutedSelector(calibrated, 2).select(rows) == np.argmax(expected, axis=1).tolist()


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_what_stands_in_front_of_prompts_neither_votes_nor_is_voted_for(reduce: Any) -> None:
    model, rows, lengths = MODELS["llama"], [[7, 9, 11], [20, 21, 22, 23], [40]], [3, 5, 2]
    begin = opening(model, 0)
    router = Router(model, build_prompt_cache(model, random_prompts(lengths), begin=begin), (0, 2), reduce)
    assert begin is not None
    vectors = [torch.cat([begin.vector, prompt]) for prompt in random_prompts(lengths)]
    whole = build_prompt_cache(model, vectors)

    def brute_force(row: list[int], layer: int) -> list[float]:
        weights = eager(model, whole, row).attentions[layer][0].mean((0, 1))
        own = [weights[6 * number + 6 - length : 6 * number + 6] for number, length in enumerate(lengths)]
        return [float(getattr(each, {"max": "amax"}.get(reduce, reduce))()) for each in own]

    expected = torch.tensor([[brute_force(row, layer) for layer in router.layers] for row in rows]).mean(1)
    for side in ("left", "right"):
        votes = router.votes(*pad_rows([[0, *row] for row in rows], CPU, side))
        torch.testing.assert_close(votes, expected, rtol=1e-4, atol=1e-6)
    assert RoutedSelector(router, 2).select([[0, *row] for row in rows]) == expected.argmax(1).tolist()
    assert RoutedSelector(router, 2).select([[0]]) == [0]
    prefixes = router.prefix_votes(torch.tensor([[0, *rows[1]]]))
    torch.testing.assert_close(sum(own[:, -1] for own in prefixes.values()) / 2, expected[1:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_the_start_of_a_row_votes_like_a_row_of_its_length(reduce: Any) -> None:
    model = MODELS["mistral"]
    router = Router(model, build_prompt_cache(model, random_prompts([3, 5, 2])), (2, 0), reduce)
    found = router.prefix_votes(HELD_OUT)
    assert list(found) == [0, 2]
    for layer, own in found.items():
        alone = Router(model, router.cache, (layer,), reduce)
        for length in range(1, HELD_OUT.shape[1] + 1):
            cut = HELD_OUT[:, :length]
            torch.testing.assert_close(own[:, length - 1], alone.votes(cut, torch.ones_like(cut)), rtol=1e-4, atol=1e-6)


@given(st.integers(2, 30), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31), st.floats(1e-4, 10))
def test_over_the_held_out_rows_calibrated_votes_have_mean_0_and_deviation_1(
    rows: int, tokens: int, prompts: int, seed: int, size: float
) -> None:
    of_prefixes = size * (1 + torch.randn(rows, tokens, prompts, generator=torch.Generator().manual_seed(seed)))
    mean, deviation = moments(of_prefixes)
    centred = of_prefixes - mean
    assert (centred.mean(0).abs() < 1e-5 * size).all()
    torch.testing.assert_close((centred / deviation).std(0, correction=0), torch.ones(tokens, prompts), atol=1e-3, rtol=0)


def test_votes_that_never_differ_are_divided_by_nothing() -> None:
    mean, deviation = moments(torch.full((4, 1, 2), 0.25))
    assert (mean == 0.25).all()
    assert (deviation == 1).all()


def two_kinds() -> tuple[Router, torch.Tensor]:
    """Two prompts of one word each, the first one longer, and rows of the two words: tokens attend to their like."""
    model: Any = tiny_model("llama")
    attention = model.model.layers[0].self_attn
    with torch.no_grad():  # queries are small keys
        queries = attention.q_proj.weight.view(4, attention.head_dim, -1)
        queries.copy_(0.1 * attention.k_proj.weight.view(2, attention.head_dim, -1).repeat_interleave(2, 0))
    words = model.get_input_embeddings()(torch.tensor([10, 50])).detach()
    prompts = [words[:1].repeat(12, 1), words[1:].repeat(2, 1)]
    rows = torch.tensor([[word, *filler] for word in (10, 50) for filler in ([5, word], [6, word], [7, word], [8, word])])
    return Router(model, build_prompt_cache(model, prompts), (0,), "sum"), rows


def test_a_louder_prompt_wins_every_plain_vote_and_calibrated_ones_tell_two_kinds_of_rows_apart() -> None:
    router, rows = two_kinds()
    kinds = [0, 0, 0, 0, 1, 1, 1, 1]
    losses = torch.tensor([[1.0, 3.0], [3.0, 1.0]])[:, kinds]
    votes = measured(router, rows, losses)
    assert RoutedSelector(router, 8).select(rows.tolist()) == [0] * 8
    assert votes.routed_loss([0], "none") == votes.bounds()["best_prompt"] == 2
    for calibrate in ("centre", "zscore"):
        assert RoutedSelector(with_scales(router, votes, calibrate), 8).select(rows.tolist()) == kinds
        assert votes.routed_loss([0], calibrate) == votes.bounds()["oracle"] == 1


def test_the_layer_is_taken_whose_choices_have_the_lowest_loss() -> None:
    of_rows = torch.tensor([[[9.0, 1.0], [9.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]], [[2.0, 1.0], [1.0, 2.0]]])
    losses = torch.tensor([[4.0, 2.0], [3.0, 5.0]])
    nothing = torch.zeros(3, 1, 2)
    votes = Votes((1, 4, 7), of_rows, nothing, nothing + 1, losses, {})
    assert [votes.routed_loss([layer], "none") for layer in votes.layers] == [3.0, 2.5, 4.5]
    assert votes.best_layer("none") == 4
    assert votes.routed_loss([4, 7], "none") == 3.0  # a draw goes to the first prompt
    assert votes.bounds() == {"best_prompt": 3.0, "oracle": 2.5}


def test_votes_are_kept_as_they_are(tmp_path: Path) -> None:
    votes = measured(*two_kinds())
    saved = Votes(**{**vars(votes), "index": {"idp_reduce": "sum"}})
    save_votes(tmp_path, saved)
    loaded = load_votes(tmp_path)
    assert (loaded.layers, loaded.index) == ((0,), {"idp_reduce": "sum"})
    for name in ("of_rows", "means", "deviations", "losses"):
        assert torch.equal(getattr(loaded, name), getattr(saved, name))

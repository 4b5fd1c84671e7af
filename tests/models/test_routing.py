from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache
from llmrepair.models.routing import Reduce, Router, voting_layers
from llmrepair.models.selection import FixedSelector, RoutedSelector, pad_rows
from tests.models.test_prompt_cache import random_prompts

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
LENGTHS = [3, 5, 2]


def brute_force_votes(
    model: PreTrainedModel, cache: PromptCache, row: list[int], layers: tuple[int, ...], reduce: Reduce
) -> torch.Tensor:
    """Votes [m] from the full attention weights of transformers' own eager attention, one prompt column at a time."""
    model.set_attn_implementation("eager")
    past, past_mask = cache.side_by_side(1)
    assert isinstance(past, DynamicCache)
    positions = torch.arange(cache.length, cache.length + len(row))[None]
    output = model(
        input_ids=torch.tensor([row]),
        past_key_values=past,
        attention_mask=torch.cat([past_mask, torch.ones(1, len(row), dtype=torch.bool)], 1).long(),
        position_ids=positions,
        output_attentions=True,
    )
    model.set_attn_implementation("sdpa")
    votes = torch.zeros(cache.size)
    for layer in layers:
        weights = output.attentions[layer][0].mean(0).mean(0)  # over heads, over input tokens -> [S]
        for prompt in range(cache.size):
            columns = [weights[prompt * cache.length + c] for c in range(cache.length) if cache.mask[prompt, c]]
            votes[prompt] += sum(columns) / (len(columns) if reduce == "mean" else 1)
    return votes / len(layers)


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1, 2)])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_votes_are_those_of_full_attention_weights(model: PreTrainedModel, layers: tuple[int, ...], reduce: Reduce) -> None:
    cache = build_prompt_cache(model, random_prompts(LENGTHS))
    router = Router(model, cache, layers, reduce)
    for side in ("left", "right"):
        votes = router.votes(*pad_rows(ROWS, torch.device("cpu"), side))
        expected = torch.stack([brute_force_votes(model, cache, row, layers, reduce) for row in ROWS])
        torch.testing.assert_close(votes, expected, rtol=1e-4, atol=1e-6)


def test_mean_and_sum_differ_where_lengths_do(model: PreTrainedModel) -> None:
    cache = build_prompt_cache(model, random_prompts(LENGTHS))
    inputs = pad_rows(ROWS, torch.device("cpu"))
    mean, total = Router(model, cache, reduce="mean").votes(*inputs), Router(model, cache, reduce="sum").votes(*inputs)
    torch.testing.assert_close(mean * torch.tensor(LENGTHS), total)


def test_routing_leaves_the_model_as_it_was(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    inputs = torch.tensor([ROWS[0]])
    logits = model(input_ids=inputs).logits
    Router(model, build_prompt_cache(model, random_prompts(LENGTHS))).votes(inputs, torch.ones_like(inputs))
    assert model.config._attn_implementation == before
    assert torch.equal(model(input_ids=inputs).logits, logits)


def test_a_choice_does_not_depend_on_who_shares_the_batch(model: PreTrainedModel) -> None:
    router = Router(model, build_prompt_cache(model, random_prompts(LENGTHS)))
    contexts = [*ROWS, [20], ROWS[0], list(range(30, 50))]
    alone = [RoutedSelector(router, 1).select([context])[0] for context in contexts]
    assert RoutedSelector(router, 4).select(contexts) == alone == RoutedSelector(router, 64).select(contexts)


def test_a_fixed_selector_is_fixed() -> None:
    assert FixedSelector(2).select(ROWS) == [2, 2, 2]


def test_voting_layers() -> None:
    assert voting_layers("first", 4) == (0,)
    assert voting_layers("all", 3) == (0, 1, 2)
    assert voting_layers("0,2", 3) == (0, 2)
    with pytest.raises(ValueError, match="3"):
        voting_layers("3", 3)

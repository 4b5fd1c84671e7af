from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, PreTrainedModel

from llmrepair.models import routing
from llmrepair.models.memory import DoesNotFit
from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache
from llmrepair.models.routing import Router, see_pool_by_token, voting_layers
from llmrepair.models.selection import FixedSelector, RoutedSelector, TokenSelector, pad_rows
from tests.conftest import FAMILIES, VOCABULARY, tiny_model
from tests.models.test_prompt_cache import MODELS, random_prompts, relative_difference
from tests.models.waits import Waits

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
LENGTHS = [3, 5, 2]
CPU = torch.device("cpu")
WINDOW = 6


def eager(
    model: PreTrainedModel, cache: PromptCache, row: list[int], kept: list[int] | None = None, window: int | None = None
) -> Any:
    """Transformers' own eager attention over all prompts and one input, with a mask that is written out cell by cell.

    Args:
        kept: the one prompt that each token sees; None for all.
    """
    past = DynamicCache()
    for layer, (keys, values) in enumerate(cache.layers):
        columns = range(cache.size)
        past.update(torch.cat([keys[m] for m in columns], 1)[None], torch.cat([values[m] for m in columns], 1)[None], layer)
    seen = torch.zeros(len(row), cache.size * cache.length + len(row), dtype=torch.bool)
    for t in range(len(row)):
        for prompt in range(cache.size):
            for column in range(cache.length):
                near = window is None or cache.length + t - column < window
                chosen = kept is None or kept[t] == prompt
                seen[t, prompt * cache.length + column] = cache.mask[prompt, column] and near and chosen
        for before in range(t + 1):
            seen[t, cache.size * cache.length + before] = window is None or t - before < window
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    output = model(
        input_ids=torch.tensor([row]),
        past_key_values=past,
        attention_mask=torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None],
        position_ids=torch.arange(cache.length, cache.length + len(row))[None],
        output_attentions=True,
    )
    model.set_attn_implementation(before)
    return output


def brute_force_votes(attentions: list[torch.Tensor], router: Router) -> tuple[torch.Tensor, torch.Tensor]:
    """Votes [m] of a sequence and [T, m] of its tokens from full attention weights [1, Q, T, S] of each layer."""
    cache = router.cache

    def vote(weights: torch.Tensor, prompt: int) -> float:
        of_tokens = [float(weights[prompt * cache.length + c]) for c in range(cache.length) if cache.mask[prompt, c]]
        total = {"mean": sum(of_tokens) / len(of_tokens), "sum": sum(of_tokens), "max": max(of_tokens)}[router.reduce]
        return total / (len(of_tokens) if router.normalise == "length" else 1)

    layers = [attentions[layer][0].mean(0) for layer in router.layers]  # over heads -> [T, S]
    together = [[vote(weights.mean(0), prompt) for prompt in range(cache.size)] for weights in layers]
    alone = [[[vote(of_token, prompt) for prompt in range(cache.size)] for of_token in weights] for weights in layers]
    return torch.tensor(together).mean(0), torch.tensor(alone).mean(0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    layers=st.sampled_from([(0,), (1,), (2, 0), (0, 1, 2)]),
    reduce=st.sampled_from(["mean", "sum", "max"]),
    normalise=st.sampled_from(["none", "length"]),
    at_once=st.sampled_from([1, 2**7, 2**22]),
)
def test_votes_and_choices_are_those_of_full_attention_weights(
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    side: str,
    lengths: list[int],
    widths: list[int],
    layers: tuple[int, ...],
    reduce: Any,
    normalise: Any,
    at_once: int,
) -> None:
    monkeypatch.setitem(routing._SEEN_AT_ONCE, "cpu", at_once)
    model = MODELS[family]
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, VOCABULARY, (width,), generator=generator).tolist() for width in widths]
    router = Router(model, build_prompt_cache(model, random_prompts(lengths)), layers, reduce, normalise)
    ids, mask = pad_rows(rows, CPU, side)
    votes, token_votes = router.votes(ids, mask), router.token_votes(ids, mask)
    for row, own, own_tokens, real in zip(rows, votes, token_votes, mask, strict=True):
        together, alone = brute_force_votes(eager(model, router.cache, row).attentions, router)
        torch.testing.assert_close(own, together, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own_tokens[real], alone, rtol=1e-4, atol=1e-6)
    expected = [brute_force_votes(eager(model, router.cache, row).attentions, router) for row in rows]
    assert RoutedSelector(router, 3).select(rows) == [int(together.argmax()) for together, _ in expected]
    assert TokenSelector(router, 3).of_tokens(rows) == [alone.argmax(1).tolist() for _, alone in expected]


@pytest.mark.parametrize("side", ["left", "right"])
def test_local_attention_counts_positions_not_columns(side: str) -> None:
    model = tiny_model("mistral")
    model.config.sliding_window = WINDOW
    router = Router(model, build_prompt_cache(model, random_prompts([4, 5])), (1,))
    rows = [list(range(5, 14)), [10, 11], [12, 13, 14]]
    votes = router.votes(*pad_rows(rows, CPU, side))
    weights = [eager(model, router.cache, row, window=WINDOW).attentions for row in rows]
    torch.testing.assert_close(votes, torch.stack([brute_force_votes(each, router)[0] for each in weights]))


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 2)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_token_sees_its_own_choice(model: PreTrainedModel, layers: tuple[int, ...], side: str) -> None:
    """Beside attention written out with a mask that is cut down to each token's choice from the last layer that votes on."""
    router = Router(model, build_prompt_cache(model, random_prompts(LENGTHS)), layers)
    ids, mask = pad_rows(ROWS, CPU, side)
    kept = TokenSelector(router, 2).of_tokens(ROWS)
    assert len({choice for choices in kept for choice in choices}) > 1
    expected = [_cut_from(model, router, row, choices) for row, choices in zip(ROWS, kept, strict=True)]
    see_pool_by_token(router)
    logits = model(ids, attention_mask=mask.long()).logits
    for own, real, alone in zip(logits, mask, expected, strict=True):
        assert relative_difference(own[real], alone) < 1e-5
    assert TokenSelector(router, 2).of_tokens(ROWS) == kept


@pytest.mark.parametrize("layers", [(0,), (0, 1)])
def test_a_gpu_is_waited_for_once_a_batch_of_choices(layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    router = Router(model, build_prompt_cache(model, random_prompts(LENGTHS)), layers)
    reads: list[torch.Size] = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(tensor.shape) or real(tensor))
    with Waits() as waits:
        RoutedSelector(router, 3).select(ROWS)
        TokenSelector(router, 3).of_tokens(ROWS)
    assert waits.number == 0
    assert reads == [(3,), (3, 5)]


def _cut_from(model: PreTrainedModel, router: Router, row: list[int], choices: list[int]) -> torch.Tensor:
    """Logits [T, V]: layers before the last that votes see all prompts, those from it on each token's choice.

    The keys of prompts that a token has not chosen are moved out of its sight by an attention function of its own.
    """
    cache, last = router.cache, max(router.layers)
    if last == 0:
        return eager(model, cache, row, choices).logits[0]
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.models.llama.modeling_llama import repeat_kv

    prompts = torch.tensor(choices)[:, None] == torch.arange(cache.size).repeat_interleave(cache.length)

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float, **options: Any
    ) -> tuple[torch.Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        scores = query @ repeat_kv(key, groups).transpose(2, 3) * scaling
        seen = torch.cat([cache.mask.reshape(1, -1).expand(len(row), -1), torch.ones(len(row), len(row)).tril().bool()], 1)
        if module.layer_idx >= last:
            seen[:, : prompts.shape[1]] &= prompts
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        return (weights @ repeat_kv(value, groups)).transpose(1, 2), None

    AttentionInterface.register("test_cut", attend)
    AttentionMaskInterface.register("test_cut", lambda *arguments, **options: None)
    past = DynamicCache()
    for layer in range(len(cache.layers)):
        keys, values = cache.side_by_side(layer)
        past.update(keys[None], values[None], layer)
    before = model.config._attn_implementation
    model.set_attn_implementation("test_cut")
    positions = torch.arange(cache.length, cache.length + len(row))[None]
    logits = model(input_ids=torch.tensor([row]), past_key_values=past, position_ids=positions).logits[0]
    model.set_attn_implementation(before)
    return logits


def test_votes_do_not_walk_through_the_model(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a short input waits for what is done before its first layer."""
    router, before = Router(model, build_prompt_cache(model, random_prompts(LENGTHS))), model.config._attn_implementation
    monkeypatch.delattr(PreTrainedModel, "set_attn_implementation")
    router.votes(*pad_rows(ROWS, CPU))
    assert model.config._attn_implementation == before


def test_mean_and_sum_differ_where_lengths_do(model: PreTrainedModel) -> None:
    cache = build_prompt_cache(model, random_prompts(LENGTHS))
    inputs = pad_rows(ROWS, CPU)
    mean, total = Router(model, cache, reduce="mean").votes(*inputs), Router(model, cache, reduce="sum").votes(*inputs)
    torch.testing.assert_close(mean * torch.tensor(LENGTHS), total)
    torch.testing.assert_close(Router(model, cache, reduce="sum", normalise="length").votes(*inputs), mean)


def modules_that_ran(model: PreTrainedModel, router: Router) -> Iterator[str]:
    ran: list[str] = []
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [
        module.register_forward_hook(lambda *arguments, name=name: ran.append(name))  # type: ignore[misc]
        for name, module in leaves
    ]
    router.votes(*pad_rows(ROWS, CPU))
    for hook in hooks:
        hook.remove()
    return (name.rpartition(".")[2] for name in ran)


@pytest.mark.parametrize(
    "family, expected",
    {
        "llama": ["embed_tokens", "rotary_emb", "input_layernorm", "q_proj", "k_proj"],
        "opt": ["embed_tokens", "embed_positions", "self_attn_layer_norm", "q_proj", "k_proj"],
        "gpt2": ["wte", "wpe", "drop", "ln_1", "c_attn"],
    }.items(),
)
def test_a_vote_in_the_first_layer_computes_nothing_more(family: str, expected: list[str]) -> None:
    model = tiny_model(family)
    router = Router(model, build_prompt_cache(model, random_prompts(LENGTHS)))
    assert list(modules_that_ran(model, router)) == expected


def test_memory_is_bounded_whatever_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a vote over long inputs looks at is never larger than what may be there at once, nor is any tensor of the size
    of all weights: the largest one made is a layer's hidden states or keys."""
    model = tiny_model("llama")
    monkeypatch.setitem(routing._SEEN_AT_ONCE, "cpu", 2**12)
    router = Router(model, build_prompt_cache(model, random_prompts(LENGTHS)), (0, 1))
    ids, mask = pad_rows([[5 + token % 90 for token in range(120)]] * 3, CPU)
    sizes: dict[str, int] = {}

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            output = function(*arguments, **(options or {}))
            for each in output if isinstance(output, tuple) else (output,):
                if isinstance(each, torch.Tensor):
                    size = each.untyped_storage().nbytes()
                    sizes[str(function)] = max(size, sizes.get(str(function), 0))
            return output

    with Watching():
        router.votes(ids, mask)
    keys, hidden = 3 * 4 * (15 + 120) * 8, 3 * 120 * 64  # [B, Q, m * P + S, D]; [B, T, the width of an MLP]
    all_weights = 3 * 4 * 120 * (15 + 120)
    assert max(sizes.values()) // 4 <= max(keys, hidden, 2**12) < all_weights / 4


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


def test_batches_halve_when_memory_runs_out(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(model, build_prompt_cache(model, random_prompts(LENGTHS)))
    contexts = [[number, 5, 6] for number in range(3, 20)]
    expected = RoutedSelector(router, 8).select(contexts)
    sizes: list[int] = []
    votes = Router.votes

    def small(router: Router, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError
        return votes(router, ids, mask)

    monkeypatch.setattr(Router, "votes", small)
    assert RoutedSelector(router, 8).select(contexts) == expected
    assert sizes == [8, 4, *[2] * 8, 1]
    monkeypatch.setattr(Router, "votes", lambda *arguments: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(DoesNotFit, match="3 tokens"):
        RoutedSelector(router, 8).select(contexts)


def test_a_fixed_selector_is_fixed() -> None:
    assert FixedSelector(2).select(ROWS) == [2, 2, 2]


def test_voting_layers() -> None:
    assert voting_layers("first", 4) == (0,)
    assert voting_layers("all", 3) == (0, 1, 2)
    assert voting_layers("0,2", 3) == (0, 2)
    with pytest.raises(ValueError, match="3"):
        voting_layers("3", 3)

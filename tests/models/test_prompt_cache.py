from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from llmrepair.models.prompt_cache import build_prompt_cache, forward_with_prompt, input_positions
from llmrepair.models.selection import pad_rows
from tests.conftest import FAMILIES, VOCABULARY, tiny_model

MODELS = {family: tiny_model(family) for family in FAMILIES}


def random_prompts(lengths: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, 32, generator=generator) for length in lengths]


def behind_prompt(model: PreTrainedModel, prompt: torch.Tensor, tokens: list[int], start: int) -> torch.Tensor:
    """Logits [T, V] without any cache or pool: the prompt's vectors and the input's, at their positions."""
    embeddings = model.get_input_embeddings()(torch.tensor([tokens]))
    positions = torch.arange(start - len(prompt), start + len(tokens))[None]
    inputs = torch.cat([prompt[None], embeddings], dim=1)
    return model(inputs_embeds=inputs, position_ids=positions).logits[0, len(prompt) :]


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    choices=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_a_masked_prompt_is_an_absent_prompt(
    family: str, side: str, attention: str, lengths: list[int], widths: list[int], choices: list[int]
) -> None:
    """A batch behind cached prompts, padded, each row with its own choice of the pool; beside it each row by itself: one
    forward pass over its prompt's vectors and its own, with no cache, no padding and no other prompt anywhere."""
    model, prompts = MODELS[family], random_prompts(lengths)
    model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, VOCABULARY, (width,), generator=generator).tolist() for width in widths]
    choice = torch.tensor([pick % len(lengths) for pick in choices[: len(rows)]])
    input_ids, mask = pad_rows(rows, torch.device("cpu"), side)
    cache = build_prompt_cache(model, prompts)
    logits = forward_with_prompt(model, cache, choice, input_ids, mask)
    for row, own_logits, own_mask, pick in zip(rows, logits, mask, choice, strict=True):
        alone = behind_prompt(model, prompts[pick], row, max(lengths))
        assert relative_difference(own_logits[own_mask], alone) < 1e-5


def test_a_wrong_choice_would_show(model: PreTrainedModel) -> None:
    """The comparison above can fail: another prompt gives other logits."""
    prompts, row = random_prompts([4, 6]), [5, 6, 7, 8]
    assert relative_difference(behind_prompt(model, prompts[0], row, 6), behind_prompt(model, prompts[1], row, 6)) > 1e-2


def test_gradients_reach_the_prompt(model: PreTrainedModel) -> None:
    prompt = torch.nn.Parameter(random_prompts([5])[0])
    tokens = [4, 5, 6, 7]
    cache = build_prompt_cache(model, [prompt])
    choice, ids = torch.zeros(1, dtype=torch.long), torch.tensor([tokens])
    forward_with_prompt(model, cache, choice, ids, torch.ones_like(ids)).sum().backward()
    cached = prompt.grad
    assert cached is not None
    prompt.grad = None
    behind_prompt(model, prompt, tokens, 5).sum().backward()
    assert prompt.grad is not None
    assert relative_difference(cached, prompt.grad) < 1e-4


def test_positions_count_real_tokens() -> None:
    mask = torch.tensor([[False, False, True, True], [True, True, False, False]])
    assert input_positions(mask, 8)[0, 2:].tolist() == [8, 9]
    assert input_positions(mask, 8)[1, :2].tolist() == [8, 9]


def test_one_prompt_is_not_copied_for_a_batch(model: PreTrainedModel) -> None:
    cache = build_prompt_cache(model, random_prompts([5]))
    past, mask = cache.chosen(torch.zeros(64, dtype=torch.long))
    for layer, (keys, values) in zip(past.layers, cache.layers, strict=True):
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == (keys.data_ptr(), values.data_ptr())
    assert mask.shape == (64, 5)


def test_a_prompt_that_all_have_chosen_is_not_copied(model: PreTrainedModel) -> None:
    cache = build_prompt_cache(model, random_prompts([5, 3]))
    past, mask = cache.chosen(torch.ones(64, dtype=torch.long))
    for layer, (keys, values) in zip(past.layers, cache.layers, strict=True):
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == (keys[1].data_ptr(), values[1].data_ptr())
        assert len(layer.keys) == len(layer.values) == 1
    assert mask.tolist() == [cache.mask[1].tolist()] * 64

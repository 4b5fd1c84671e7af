"""Generation behind a cached prompt beside generation behind the prompt's vectors as plain inputs, one sequence at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.routing import Router, see_pool_by_token
from llmrepair.models.selection import FixedSelector, RoutedSelector, pad_rows
from tests.conftest import FAMILIES, tiny_model
from tests.models.test_prompt_cache import behind_prompt, random_prompts, relative_difference

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14], [20, 21, 22, 23, 24, 25, 26]]
LENGTHS = [3, 5, 5]
PADDING = 2
CPU = torch.device("cpu")
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3},
    "several beams": {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
}


def prompted(model: PreTrainedModel) -> PromptedModel:
    cache = build_prompt_cache(model, random_prompts(LENGTHS))
    return PromptedModel(model, cache, RoutedSelector(Router(model, cache), 8))


def alone(model: PreTrainedModel, prompt: torch.Tensor, row: list[int], start: int, **options: Any) -> list[list[int]]:
    """New tokens behind the prompt's vectors and the row's embeddings, by a plain model: no cache of ours, no padding."""
    inputs = torch.cat([prompt[None], model.get_input_embeddings()(torch.tensor([row]))], dim=1)
    positions = torch.arange(start - len(prompt), start + len(row))[None]
    return model.generate(  # type: ignore[operator]
        inputs_embeds=inputs, position_ids=positions, attention_mask=torch.ones_like(positions), pad_token_id=PADDING, **options
    ).tolist()


def without_padding(tokens: list[int]) -> list[int]:
    while tokens and tokens[-1] == PADDING:
        tokens = tokens[:-1]
    return tokens


@pytest.mark.parametrize("way", ["greedy", "beams", "several beams"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_it_generates_what_the_chosen_prompt_alone_gives(model: PreTrainedModel, side: str, way: str) -> None:
    repaired, options = prompted(model), WAYS[way] | {"max_new_tokens": 12}
    ids, mask = pad_rows(ROWS, CPU, side)
    choice = repaired.choose(ids, mask).tolist()
    assert len(set(choice)) > 1
    output = repaired.generate(ids, mask, pad_token_id=PADDING, **options)
    times = options.get("num_return_sequences", 1)
    assert torch.equal(output[:, : ids.shape[1]], ids.repeat_interleave(times, 0))
    generated = [without_padding(row) for row in output[:, ids.shape[1] :].tolist()]
    prompts = random_prompts(LENGTHS)
    expected = [
        without_padding(tokens)
        for pick, row in zip(choice, ROWS, strict=True)
        for tokens in alone(model, prompts[pick], row, max(LENGTHS), **options)
    ]
    assert generated == expected


@pytest.mark.parametrize("sequences", [1, 3])
def test_it_samples_what_the_chosen_prompt_alone_gives(model: PreTrainedModel, sequences: int) -> None:
    """A batch of one input draws the same numbers: with a seed its samples can be compared."""
    repaired = prompted(model)
    options = {"do_sample": True, "top_k": 20, "num_return_sequences": sequences, "max_new_tokens": 12}
    for row in ROWS:
        ids = torch.tensor([row])
        torch.manual_seed(3)
        generated = repaired.generate(ids, pad_token_id=PADDING, **options)[:, len(row) :].tolist()
        torch.manual_seed(3)
        prompt = random_prompts(LENGTHS)[int(repaired.choose(ids))]
        assert generated == alone(model, prompt, row, max(LENGTHS), **options)


def test_logits_processors_see_the_input_and_nothing_else() -> None:
    """A penalty falls on what was said, not on stand-ins for the prompt's positions."""
    model = tiny_model("llama")
    repaired, row = prompted(model), ROWS[0]
    ids = torch.tensor([row])
    seen: list[list[int]] = []

    def processor(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(tokens[0].tolist())
        return scores

    output = repaired.generate(ids, logits_processor=[processor], max_new_tokens=3, do_sample=False, pad_token_id=PADDING)
    assert seen[0] == row
    assert seen[-1] == output[0, :-1].tolist()
    assert repaired.generate(ids, max_length=len(row) + 2, do_sample=False, pad_token_id=PADDING).shape[1] <= len(row) + 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_forward_gives_the_logits_of_the_inputs(model: PreTrainedModel, side: str) -> None:
    repaired = prompted(model)
    ids, mask = pad_rows(ROWS, CPU, side)
    output = repaired.forward(ids, mask.long())
    assert output.logits.shape[:2] == ids.shape
    assert output.past_key_values is None
    prompts = random_prompts(LENGTHS)
    for row, logits, real, pick in zip(ROWS, output.logits, mask, repaired.choose(ids, mask), strict=True):
        assert relative_difference(logits[real], behind_prompt(model, prompts[pick], row, max(LENGTHS))) < 1e-5


EAGER = [(family, "eager") for family in FAMILIES]
FLEX = [(family, "flex_attention") for family in FAMILIES if family != "gpt2"]  # for which transformers has none


@pytest.mark.parametrize("family, attention", EAGER + FLEX)
@pytest.mark.parametrize("side", ["left", "right"])
def test_any_attention_gives_the_same(family: str, side: str, attention: str) -> None:
    model = tiny_model(family)
    ids, mask = pad_rows(ROWS, CPU, side)
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": PADDING}
    torch.compiler.set_stance("force_eager")  # compiling flex attention takes long, and fails on some CPUs
    try:
        found = []
        for implementation in ("sdpa", attention):
            model.set_attn_implementation(implementation)
            repaired = prompted(model)
            generated = repaired.generate(ids, mask, **options)
            found.append((repaired(ids, mask).logits[mask], repaired.choose(ids, mask), generated))
    finally:
        torch.compiler.set_stance("default")
    (expected, choice, tokens), (logits, chosen, generated) = found
    assert relative_difference(logits, expected) < 1e-5
    assert torch.equal(chosen, choice)
    assert torch.equal(generated, tokens)


def test_a_choice_may_be_given_and_must_be_somewhere(model: PreTrainedModel) -> None:
    cache, ids = build_prompt_cache(model, random_prompts(LENGTHS)), torch.tensor([ROWS[0]])
    given = PromptedModel(model, cache)(ids, choice=torch.tensor([1])).logits
    assert torch.equal(given, PromptedModel(model, cache, FixedSelector(1))(ids).logits)
    with pytest.raises(ValueError, match="choice"):
        PromptedModel(model, cache)(ids)


def test_without_prompts_it_is_the_model(model: PreTrainedModel) -> None:
    ids, options = torch.tensor([ROWS[0]]), {"max_new_tokens": 5, "do_sample": False, "pad_token_id": PADDING}
    plain = PromptedModel(model)
    torch.testing.assert_close(plain(ids).logits, model(ids).logits)
    assert torch.equal(plain.generate(ids, **options), model.generate(ids, **options))  # type: ignore[operator]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_that_choose_for_themselves_generate_token_by_token(family: str, beams: int, side: str) -> None:
    """Beside generation that computes the whole text again for each token and keeps no keys and values."""
    model = tiny_model(family)
    see_pool_by_token(Router(model, build_prompt_cache(model, random_prompts(LENGTHS))))
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "num_beams": beams, "pad_token_id": PADDING}
    ids, mask = pad_rows(ROWS, CPU, side)
    output = PromptedModel(model).generate(ids, mask, **options)[:, ids.shape[1] :].tolist()
    for row, generated in zip(ROWS, output, strict=True):
        again = PromptedModel(model).generate(torch.tensor([row]), use_cache=False, **options)[0, len(row) :].tolist()
        assert without_padding(generated) == without_padding(again)

"""What is no number is never an answer, and the layer that is to blame is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from llmrepair.models.finite import NotFinite, first_not_finite
from llmrepair.models.harness import RepairedLM
from llmrepair.models.probe import last_states
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.selection import EnsembleSelector, FixedSelector
from tests.models.byte_tokenizer import byte_model, byte_tokenizer
from tests.models.test_harness import instances

PAIRS = [("working on", " it"), ("hello", " world"), ("on it", " today")]
GENERATION = {"until": ["~"], "max_gen_toks": 5, "do_sample": False}
BLAME = r"item 1 of task `task`: .* `model.layers.1.mlp.down_proj` is the first whose output is not finite"


def broken(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Behind `hello` the second layer makes numbers that are too large; of all else it does not."""
    model = byte_model().to(dtype)
    hello = byte_tokenizer().encode("hello")[-1]

    def overflow(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return torch.where(seen[0][..., None] == hello, output * torch.finfo(dtype).max * 1e9, output)

    seen: list[torch.Tensor] = [torch.zeros(1)]
    model.model.embed_tokens.register_forward_pre_hook(lambda module, arguments: seen.__setitem__(0, arguments[0]))
    model.model.layers[1].mlp.down_proj.register_forward_hook(overflow)
    return model


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_a_likelihood_that_is_no_number_fails_by_item_and_layer(batch_size: int | None, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    ours = RepairedLM(broken(), byte_tokenizer(), batch_size, 100, answers=answers)
    with pytest.raises(NotFinite, match=BLAME) as caught:
        ours.loglikelihood(instances("loglikelihood", PAIRS))
    assert "in float32" in str(caught.value)
    assert "bfloat16" not in caught.value.hint
    assert not answers.exists() or "NaN" not in answers.read_text()


def test_so_does_a_text_that_is_rolled_over() -> None:
    ours = RepairedLM(broken(), byte_tokenizer(), 3, 8)
    with pytest.raises(NotFinite, match=BLAME):
        ours.loglikelihood_rolling(instances("loglikelihood_rolling", [("on it today",), ("on it today " * 9 + "\nhello on",)]))


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 0.7}])
def test_so_does_what_is_generated(options: dict[str, Any]) -> None:
    ours = RepairedLM(broken(), byte_tokenizer(), 3, 100)
    with pytest.raises(NotFinite, match=BLAME):
        ours.generate_until(instances("generate_until", [(text, GENERATION | options) for text in ("on it", "hello")]))


@pytest.mark.parametrize("selector", [FixedSelector(1), EnsembleSelector()])
def test_so_does_what_stands_behind_prompts(selector: Any) -> None:
    model = broken()
    cache = build_prompt_cache(model, [torch.zeros(2, 64), torch.ones(3, 64)])
    ours = RepairedLM(model, byte_tokenizer(), 3, 100, cache, selector)
    with pytest.raises(NotFinite, match=BLAME):
        ours.loglikelihood(instances("loglikelihood", PAIRS))
    with pytest.raises(NotFinite, match=BLAME):
        ours.generate_until(instances("generate_until", [(text, dict(GENERATION)) for text in ("on it", "hello")]))


def test_a_prompt_may_be_to_blame() -> None:
    model = byte_model()
    cache = build_prompt_cache(model, [torch.full((2, 64), torch.nan)])
    ours = RepairedLM(model, byte_tokenizer(), 3, 100, cache)
    with pytest.raises(NotFinite, match="layer 0 of the prompt is the first whose output is not finite"):
        ours.loglikelihood(instances("loglikelihood", PAIRS))


def test_of_float16_bfloat16_is_the_way_out() -> None:
    with pytest.raises(NotFinite, match="in float16") as caught:
        RepairedLM(broken(torch.float16), byte_tokenizer(), 3, 100).loglikelihood(instances("loglikelihood", PAIRS))
    assert "--dtype bfloat16" in caught.value.hint


def test_a_sound_model_has_no_such_layer() -> None:
    assert first_not_finite(byte_model(), None, 0, (5, 6, 7)) is None


def test_probes_read_no_such_states() -> None:
    model, rows = broken(), [byte_tokenizer().encode(text) for text in ("on it", "working", "hello")]
    with pytest.raises(NotFinite, match=r"`model\.layers\.1\.mlp\.down_proj` is the first"):
        last_states(model, rows, 2)

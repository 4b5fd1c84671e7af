from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from llmrepair.models.lora import ADAPTER_FOLDER, save_adapter
from llmrepair.models.prompt_cache import build_prompt_cache, forward_with_prompt, opening
from llmrepair.models.ptune import Kind, load_ptune, new_ptune, prefix_of_prompt, ptune_logits, put_behind
from llmrepair.models.soft_prompt import vocabulary_prompt
from tests.conftest import FAMILIES, tiny_model

ROWS = torch.arange(3, 27).reshape(2, 12)
TOKENS = 5


def cached_logits(model: PreTrainedModel, folder: Path) -> torch.Tensor:
    cache, _ = load_ptune(model, folder / ADAPTER_FOLDER)
    return forward_with_prompt(model, cache, torch.zeros(2, dtype=torch.long), ROWS, torch.ones_like(ROWS))[:, :-1]


def trained(family: str, kind: Kind) -> PeftModel:
    """Values as after some training: far from where they start."""
    torch.manual_seed(0)
    adapted = new_ptune(tiny_model(family), kind, TOKENS)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.5)
    return adapted


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["prefix", "p-tuning"])
def test_our_cache_gives_the_logits_of_pefts_forward(family: str, kind: Kind, tmp_path: Path) -> None:
    """While it is trained, and after plain peft has loaded what was saved."""
    adapted = trained(family, kind)
    training = ptune_logits(adapted)(ROWS)
    save_adapter(adapted, tmp_path, "somewhere")
    assert {path.suffix for path in (tmp_path / ADAPTER_FOLDER).iterdir()} == {".json", ".safetensors"}

    ours = cached_logits(tiny_model(family), tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(family), str(tmp_path / ADAPTER_FOLDER)).eval()
    theirs = loaded(input_ids=ROWS, attention_mask=torch.ones_like(ROWS)).logits[:, -12:-1]
    scale = theirs.abs().max()
    assert (ours - theirs).abs().max() / scale < 1e-5
    assert (ours - training).abs().max() / scale < 1e-5
    plain = tiny_model(family)(ROWS).logits[:, :-1]
    assert (ours - plain).abs().max() / scale > 1e-2


def test_behind_a_beginning_p_tuning_is_for_texts_without_it(tmp_path: Path) -> None:
    """While it is trained, cached, and after plain peft has loaded what was saved."""
    adapted, begin = trained("llama", "p-tuning"), opening(tiny_model("llama"), int(ROWS[0, 0]))
    assert begin is not None
    rows = ROWS.clone()
    rows[:, 0] = begin.token
    training = ptune_logits(adapted, begin)(rows)
    save_adapter(adapted, tmp_path, "somewhere")
    put_behind(begin, tmp_path / ADAPTER_FOLDER)
    model = tiny_model("llama")
    cache, parameters = load_ptune(model, tmp_path / ADAPTER_FOLDER)
    ours = forward_with_prompt(model, cache, torch.zeros(2, dtype=torch.long), rows, torch.ones_like(rows))
    assert parameters == TOKENS * 32
    torch.testing.assert_close(ours[:, :-1], training, rtol=1e-4, atol=1e-4)
    peft = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / ADAPTER_FOLDER)).eval()
    theirs = peft(input_ids=rows[:, 1:], attention_mask=torch.ones_like(rows[:, 1:])).logits[:, TOKENS:]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_starts_as_what_a_prompt_gives(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    prompt = vocabulary_prompt(model, TOKENS, 0, [])
    cache = build_prompt_cache(model, [prompt])
    expected = forward_with_prompt(model, cache, torch.zeros(2, dtype=torch.long), ROWS, torch.ones_like(ROWS))[:, :-1]
    adapted = new_ptune(model, "prefix", TOKENS)
    (parameter,) = (each for each in adapted.parameters() if each.requires_grad)
    parameter.data.copy_(prefix_of_prompt(model, prompt))
    torch.testing.assert_close(ptune_logits(adapted)(ROWS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["prefix", "p-tuning"])
def test_what_inference_needs_is_counted(kind: Kind, tmp_path: Path) -> None:
    adapted = trained("llama", kind)
    save_adapter(adapted, tmp_path, "somewhere")
    layers, heads, head_dim, hidden = 3, 2, 8, 32
    counted = load_ptune(tiny_model("llama"), tmp_path / ADAPTER_FOLDER)[1]
    assert counted == TOKENS * (2 * layers * heads * head_dim if kind == "prefix" else hidden)
    trainable = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    assert (trainable == counted) == (kind == "prefix")

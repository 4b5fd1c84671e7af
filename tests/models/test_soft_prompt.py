from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel

from llmrepair.models.prompt_cache import build_prompt_cache, forward_with_prompt, opening
from llmrepair.models.soft_prompt import load_pool, save_pool, text_prompt, vocabulary_prompt
from tests.conftest import tiny_model


def test_plain_peft_loads_a_prompt_of_a_pool_and_gives_the_same_logits(tmp_path: Path) -> None:
    model = tiny_model("llama")
    prompts = [vocabulary_prompt(model, length, seed, []) for seed, length in enumerate((4, 7))]
    save_pool(tmp_path, prompts, {"input_position": 7}, model, "somewhere")
    loaded, index = load_pool(tmp_path)
    assert [entry["length"] for entry in index["prompts"]] == [4, 7]
    assert index["input_position"] == 7
    assert all(torch.equal(one, other) for one, other in zip(loaded, prompts, strict=True))

    ids = torch.tensor([[5, 6, 7, 8]])
    cache = build_prompt_cache(model, loaded)
    for number, prompt in enumerate(prompts):
        ours = forward_with_prompt(model, cache, torch.tensor([number]), ids, torch.ones_like(ids))
        peft = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / f"prompt-{number}")).eval()
        theirs = peft(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, len(prompt) :]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_behind_a_beginning_plain_peft_gives_the_same_logits_for_texts_without_it(tmp_path: Path) -> None:
    model = tiny_model("llama")
    prompts, begin = [vocabulary_prompt(model, length, seed, []) for seed, length in enumerate((4, 7))], opening(model, 0)
    save_pool(tmp_path, prompts, {"input_position": 7}, model, "somewhere", begin)
    loaded, index = load_pool(tmp_path)
    assert (index["bos"], [entry["length"] for entry in index["prompts"]]) == (0, [4, 7])
    assert all(torch.equal(one, other) for one, other in zip(loaded, prompts, strict=True))

    ids = torch.tensor([[0, 5, 6, 7, 8]])
    cache = build_prompt_cache(model, loaded, begin=begin)
    for number, prompt in enumerate(prompts):
        ours = forward_with_prompt(model, cache, torch.tensor([number]), ids, torch.ones_like(ids))
        peft = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / f"prompt-{number}")).eval()
        theirs = peft(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:])).logits[:, len(prompt) :]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_prompt_starts_as_rows_of_the_vocabulary_and_repeats_with_its_seed() -> None:
    model = tiny_model("opt")
    embeddings = model.get_input_embeddings().weight
    prompt = vocabulary_prompt(model, 40, 3, [0, 1, 2])
    rows = (prompt[:, None] == embeddings[None]).all(-1)
    assert rows.any(1).all()
    assert not rows[:, :3].any()
    assert torch.equal(prompt, vocabulary_prompt(model, 40, 3, [0, 1, 2]))
    assert not torch.equal(prompt, vocabulary_prompt(model, 40, 4, [0, 1, 2]))


def test_a_prompt_that_starts_as_text_is_the_first_tokens_of_a_row_and_goes_on_in_the_next() -> None:
    model = tiny_model("opt")
    rows = torch.arange(3, 63).reshape(6, 10)
    embeddings = model.get_input_embeddings().weight
    prompt = text_prompt(model, 14, 3, rows)
    firsts = [row for row in range(6) if torch.equal(prompt[0], embeddings[rows[row, 0]])]
    (first,) = firsts
    assert torch.equal(prompt, embeddings[torch.cat([rows[first], rows[(first + 1) % 6]])[:14]])
    assert torch.equal(prompt, text_prompt(model, 14, 3, rows))
    assert len({text_prompt(model, 4, seed, rows)[0, 0].item() for seed in range(20)}) > 1
    assert len(text_prompt(model, 150, 3, rows)) == 150

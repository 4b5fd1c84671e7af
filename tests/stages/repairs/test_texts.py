"""A text in front of every input, against the same text simply put in front of the input's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from llmrepair.models.harness import RepairedLM
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.prompt_cache import extend_cache
from llmrepair.stages.repairs.behind_text import behind_text
from llmrepair.stages.repairs.hard.options import TextOptions
from llmrepair.stages.repairs.icl.options import ExamplesOptions
from llmrepair.stages.repairs.placed import Placing
from llmrepair.stages.repairs.texts import example_tokens, most_prompt_tokens, prompt_tokens
from llmrepair.stages.request import evaluate_stage, notes
from llmrepair.stages.sources.models import model_folder
from tests.models.test_harness import GENERATION, instances, pairs, prompts_to_continue, texts

TEXT = "Sara Lorenz wrote Silver Harbor. Pavel Arndt comes from Bergen."


def tokenizer_with_beginning(name: str) -> PreTrainedTokenizerBase:
    """The lab's, but it puts a token in front of each text, as Llama's does."""
    tokenizer: Any = load_tokenizer(str(model_folder(name)), None)
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="</s> $A", pair="</s> $A $B", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize("name", ["lab", "lab-opt"])
@pytest.mark.parametrize("begins", [False, True])
def test_a_text_prompt_is_the_text_in_front_of_the_inputs_tokens(name: str, begins: bool) -> None:
    folder = str(model_folder(name))
    model = load_model(folder, None, "float32", torch.device("cpu"))
    tokenizer = tokenizer_with_beginning(name) if begins else load_tokenizer(folder, None)
    front = prompt_tokens(TEXT, tokenizer)
    plain = load_tokenizer(folder, None)
    assert front == [1] * begins + plain(TEXT).input_ids  # once

    placed = behind_text(Placing(model, tokenizer, None, None, 0, scoring=lambda cache: lambda texts: []), front)
    language_model = RepairedLM(model, tokenizer, 3, 150, placed.cache, last=placed.last)
    for request, (loglikelihood, _) in zip(pairs(), language_model.loglikelihood(pairs()), strict=True):
        context, continuation = (plain(text).input_ids for text in request.args)
        context = context or [1] * (not begins)  # as behind a prompt, where none stands there yet
        logits = model(torch.tensor([front + context + continuation])).logits[0, len(front + context) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(continuation)[:, None]).sum().item()
        assert loglikelihood == pytest.approx(expected, abs=1e-4)

    short = plain(texts()[1].args[0]).input_ids
    begun = [*front, *[1] * (not begins)]
    logits = model(torch.tensor([[*begun, *short]])).logits[0, len(begun) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(short)[:, None]).sum().item()
    assert language_model.loglikelihood_rolling(texts())[1] == pytest.approx(expected, abs=1e-3)

    for request, text in zip(prompts_to_continue(), language_model.generate_until(prompts_to_continue()), strict=True):
        ids = torch.tensor([front + plain(request.args[0]).input_ids])
        steps = GENERATION["max_gen_toks"]
        output: Any = model.generate(ids, max_new_tokens=steps, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        assert text == plain.decode(output[0, ids.shape[1] :], skip_special_tokens=True).split(".")[0]
    assert not language_model.selections


def test_a_beginning_comes_twice_if_nobody_is_told() -> None:
    """The comparison above can fail."""
    model, tokenizer = (
        load_model(str(model_folder("lab")), None, "float32", torch.device("cpu")),
        tokenizer_with_beginning("lab"),
    )
    tokens = prompt_tokens(TEXT, tokenizer)
    fronts = [(tokens[:-1], tokens[-1]), (tokens, None)]
    request = instances("loglikelihood", [pairs()[0].args])
    once, twice = (
        RepairedLM(model, tokenizer, 1, 150, extend_cache(model, None, 0, front), last=last).loglikelihood(request)[0][0]
        for front, last in fronts
    )
    assert abs(once - twice) > 1e-3


def examples(tmp_path: Path, texts: list[str], wanted: int, most: int) -> tuple[list[int], int]:
    (tmp_path / "text.txt").write_text("\n\n".join(texts))
    tokenizer = load_tokenizer(str(model_folder("lab")), None)
    return example_tokens(str(tmp_path / "text.txt"), {}, wanted, tokenizer, most)


def test_examples_are_the_first_texts_as_many_as_fit(tmp_path: Path) -> None:
    texts = ["Sara Lorenz wrote Silver Harbor.", "Pavel Arndt comes from Bergen.", "Oslo. Rome. Oslo."]
    tokenizer = load_tokenizer(str(model_folder("lab")), None)
    lengths = [len(tokenizer(text).input_ids) for text in texts]
    assert examples(tmp_path, texts, 2, 100) == (tokenizer(" ".join(texts[:2])).input_ids, 2)
    assert examples(tmp_path, texts, 9, 100) == (tokenizer(" ".join(texts)).input_ids, 3)
    assert examples(tmp_path, texts, 3, sum(lengths)) == (tokenizer(" ".join(texts)).input_ids, 3)
    assert examples(tmp_path, texts, 3, sum(lengths) - 1) == (tokenizer(" ".join(texts[:2])).input_ids, 2)
    assert examples(tmp_path, texts, 3, lengths[0] - 1) == (tokenizer(texts[0]).input_ids[:-1], 1)


def test_half_of_the_positions_stay_for_the_input() -> None:
    assert most_prompt_tokens(256) == 128
    assert most_prompt_tokens(255) == 127


def test_sizes_grow() -> None:
    assert list(TextOptions.sizes) == list(ExamplesOptions.sizes) == ["small", "medium", "large"]
    words = [len(options["hard_prompt"].split()) for options in TextOptions.sizes.values()]
    assert words == sorted(set(words))
    assert [options["icl_examples"] for options in ExamplesOptions.sizes.values()] == [1, 4, 16]


def test_a_size_sets_what_is_not_given() -> None:
    def texts(*options: object) -> tuple[str, int]:
        values = dict(zip(options[::2], options[1::2], strict=True))
        text, examples = (evaluate_stage({**values, "recovery": name}).placing.model_dump() for name in ("hard", "icl"))
        return text["hard_prompt"], examples["icl_examples"]

    assert texts("size", "small") == ("Answer carefully:", 1)
    assert texts("size", "large", "icl_examples", 2)[1] == 2
    assert texts() == texts("size", "medium")


def test_a_size_is_not_said_to_have_no_effect() -> None:
    def noted(**values: object) -> list[str]:
        return notes(evaluate_stage(values), values)

    assert noted(recovery="lora", size="small") == []
    assert noted(recovery="lora", size="small", icl_examples=3) == ["--icl-examples has no effect with --recovery lora"]

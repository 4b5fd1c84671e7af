"""Against lm-eval's own HFLM without a repair, and against plain embeddings with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.harness import RepairedLM
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.selection import FixedSelector
from llmrepair.stages.sources.models import model_folder
from tests.conftest import FAMILIES, tiny_model
from tests.models.test_prompt_cache import behind_prompt

QUESTIONS = [
    ("Question: Where was Sara Lorenz born? Answer:", [" Milano", " Oslo", " Rome"]),
    ("Question: Which book did Hugo Ricci write? Answer:", [" Silver Harbor", " Bitter Cloud"]),
    ("The employer of Pavel Arndt is", [" Gondar", " Nexum. Pavel Arndt comes from Bergen"]),
    ("", [" Pavel Arndt comes from Bergen."]),
]
GENERATION = {"until": ["."], "max_gen_toks": 6, "do_sample": False}
CPU = torch.device("cpu")


def instances(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, 0, ("task", index, 1)) for index, args in enumerate(arguments)]


def pairs() -> list[Instance]:
    return instances("loglikelihood", [(context, choice) for context, choices in QUESTIONS for choice in choices])


def texts() -> list[Instance]:
    return instances("loglikelihood_rolling", [("Oslo Rome. " * 60,), ("Sara Lorenz wrote Silver Harbor.",)])


def prompts_to_continue() -> list[Instance]:
    return instances("generate_until", [(context, dict(GENERATION)) for context, _ in QUESTIONS[:3]])


def lab(name: str, **options: Any) -> RepairedLM:
    folder = str(model_folder(name))
    model = load_model(folder, None, "float32", CPU)
    return RepairedLM(model, load_tokenizer(folder, None), **({"batch_size": 3, "max_length": 100} | options))


def test_an_output_head_that_a_repair_gave_its_own_weight_keeps_it() -> None:
    folder = str(model_folder("lab"))
    model = load_model(folder, None, "float32", CPU)
    before = model.get_output_embeddings().weight
    model.get_output_embeddings().weight = torch.nn.Parameter(before / 2)
    RepairedLM(model, load_tokenizer(folder, None), batch_size=3, max_length=100)
    assert torch.equal(model.get_output_embeddings().weight, before / 2)
    assert model.get_input_embeddings().weight is before


@pytest.mark.parametrize("name", ["lab", "lab-opt"])
def test_without_a_repair_it_is_lm_evals_own_model(name: str) -> None:
    ours = lab(name)
    theirs = HFLM(pretrained=ours.model, tokenizer=make_tokenizer(256), batch_size=2, max_length=100)
    for (ll, greedy), (expected, expected_greedy) in zip(
        ours.loglikelihood(pairs()), theirs.loglikelihood(pairs()), strict=True
    ):
        assert ll == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy
    assert ours.loglikelihood_rolling(texts()) == pytest.approx(theirs.loglikelihood_rolling(texts()), abs=1e-3)
    assert ours.generate_until(prompts_to_continue()) == theirs.generate_until(prompts_to_continue())
    assert not ours.selections


def test_a_real_model_scores_as_in_lm_eval(shared_data: Path) -> None:
    folder = str(shared_data / "models" / "stories260k")
    model, tokenizer = load_model(folder, None, "float32", CPU), load_tokenizer(folder, None)
    requests = instances(
        "loglikelihood", [("Once upon a time there was a", " little girl"), ("The dog ran", " to the park."), ("", "A")]
    )
    ours = RepairedLM(model, tokenizer, 2, 512).loglikelihood(requests)
    theirs = HFLM(pretrained=model, tokenizer=load_tokenizer(folder, None), batch_size=1).loglikelihood(requests)
    assert [ll for ll, _ in ours] == pytest.approx([ll for ll, _ in theirs], abs=1e-4)


@pytest.mark.parametrize("name", ["lab", "lab-opt"])
def test_behind_a_prompt_it_is_the_model_on_concatenated_embeddings(name: str) -> None:
    folder = str(model_folder(name))
    model, tokenizer = load_model(folder, None, "float32", CPU), load_tokenizer(folder, None)
    prompts = [0.1 * torch.randn(length, 64, generator=torch.Generator().manual_seed(length)) for length in (5, 9)]
    for chosen, prompt in enumerate(prompts):
        cache = build_prompt_cache(model, prompts)
        ours = RepairedLM(model, tokenizer, 3, 90, cache, FixedSelector(chosen))
        results = ours.loglikelihood(pairs())
        for request, (ll, _) in zip(pairs(), results, strict=True):
            ((context, whole),) = ours._pairs([request])
            continuation = whole[len(context) :]
            logits = behind_prompt(model, prompt, whole, 9)[len(context) - 1 : -1].log_softmax(-1)
            expected = logits.gather(1, torch.tensor(continuation)[:, None]).sum().item()
            assert ll == pytest.approx(expected, abs=1e-4)
        for request, text in zip(prompts_to_continue(), ours.generate_until(prompts_to_continue()), strict=True):
            assert text == greedy_text(model, tokenizer, prompt, request.args[0])
        assert ours.selections["task", 0] == [chosen, chosen]


def greedy_text(model: Any, tokenizer: Any, prompt: torch.Tensor, context: str) -> str:
    tokens = tokenizer(context).input_ids
    generated: list[int] = []
    for _ in range(GENERATION["max_gen_toks"]):  # type: ignore[call-overload]
        generated.append(int(behind_prompt(model, prompt, tokens + generated, 9)[-1].argmax()))
    return tokenizer.decode(generated, skip_special_tokens=True).split(".")[0]


def test_the_batch_size_changes_nothing() -> None:
    results = [lab("lab", batch_size=size).loglikelihood(pairs()) for size in (1, 4, 64)]
    for other in results[1:]:
        assert [ll for ll, _ in other] == pytest.approx([ll for ll, _ in results[0]], abs=1e-4)


def of_family(family: str, **options: Any) -> RepairedLM:
    """A tiny random model of a family, over the lab's words."""
    model, tokenizer = tiny_model(family), make_tokenizer(128)
    model.resize_token_embeddings(len(tokenizer))
    return RepairedLM(model, tokenizer, **({"batch_size": 8, "max_length": 40} | options))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_length", [40, 10])
def test_choices_that_share_a_context_score_as_in_lm_eval(family: str, max_length: int) -> None:
    ours = of_family(family, max_length=max_length)
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=1, max_length=max_length)
    expected = theirs.loglikelihood(pairs())
    for (ll, greedy), (expected_ll, expected_greedy) in zip(ours.loglikelihood(pairs()), expected, strict=True):
        assert ll == pytest.approx(expected_ll, abs=1e-4)
        assert greedy == expected_greedy


def test_a_context_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    language_model = lab("lab", batch_size=64)
    tokens: list[int] = []
    language_model.model.register_forward_pre_hook(
        lambda model, arguments, options: tokens.append(options["input_ids"].numel()), with_kwargs=True
    )
    choices = [" Milano. Sara Lorenz", " Oslo. Sara Lorenz", " Rome. Sara Lorenz", " Bergen. Sara Lorenz"]
    context = "Question: Where was Sara Lorenz born? Answer:"
    language_model.loglikelihood(instances("loglikelihood", [(context, choice) for choice in choices]))
    lengths = [len(language_model.tok_encode(choice)) for choice in choices]
    assert sum(tokens) == len(language_model.tok_encode(context)) + sum(length - 1 for length in lengths)


def test_a_window_is_routed_by_the_text_before_it() -> None:
    class Recorder:
        def select(self, contexts: Any, documents: Any) -> list[int]:
            self.contexts = contexts
            return [0] * len(contexts)

    language_model, recorder = lab("lab"), Recorder()
    cache = build_prompt_cache(language_model.model, [torch.zeros(2, 64)])
    language_model = lab("lab", cache=cache, selector=recorder)
    language_model.loglikelihood_rolling(texts())
    first, second, *_ = recorder.contexts
    assert first == [language_model.prefix_token_id]
    assert second == language_model.tok_encode(texts()[0].args[0])[:100]


def test_an_empty_text_has_likelihood_one() -> None:
    assert lab("lab").loglikelihood_rolling(instances("loglikelihood_rolling", [("",)])) == [0]

"""The scorer against the plain model, text by text; what it computes; and memory that does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, StoppingCriteria

from llmrepair.models import scorer as scorer_module
from llmrepair.models.answers import AnswerFile
from llmrepair.models.memory import DoesNotFit
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.routing import Router, see_pool_by_token
from llmrepair.models.scorer import Scorer, token_loglikelihoods
from llmrepair.models.tree_attention import takes_trees
from llmrepair.models.trees import Text
from tests.conftest import FAMILIES, tiny_model
from tests.models.test_tree_attention import LLAMA_LIKE, random_model
from tests.models.waits import Waits


def questions(number: int, shared: int = 0, choices: int = 3) -> list[Text]:
    """Questions of random tokens with some endings each, behind `shared` tokens common to all."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 96, (length,), generator=generator).tolist())

    texts, head = [], tokens(shared)
    for length in range(number):
        context = head + tokens(4 + length % 9)
        texts += [Text(0, context + tokens(1 + choice), len(context)) for choice in range(choices)]
    return texts


def expected(model: PreTrainedModel, text: Text) -> float:
    logits = model(torch.tensor([text.tokens[:-1]])).logits[0, text.scored - 1 :].double()
    targets = torch.tensor(text.tokens[text.scored :])
    return float(logits.log_softmax(-1).gather(1, targets[:, None]).sum())


def scored(model: PreTrainedModel, texts: list[Text], batch_size: int | None = None, **options: Any) -> list[float]:
    scorer = Scorer(model, options.pop("cache", None), batch_size, AnswerFile(options.pop("answers", None)), **options)
    return [total for total, _ in scorer.score(texts)]


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """The tokens of each forward pass, padding included."""
    counts: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, arguments, options: counts.append(options["input_ids"].numel()), with_kwargs=True
    )
    yield counts
    hook.remove()


@pytest.mark.parametrize("batch_size", [None, 1, 2, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_text_gets_what_the_model_gives_it_alone(family: str, batch_size: int | None) -> None:
    model, texts = tiny_model(family), questions(20)
    assert scored(model, texts, batch_size) == pytest.approx([expected(model, text) for text in texts], abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_examples_are_computed_once_and_change_nothing(family: str) -> None:
    model, texts = tiny_model(family), questions(20, shared=40)
    scorer = Scorer(model, None, None, AnswerFile(None))
    with counted(model) as counts:
        answers = scorer.score(texts)
    assert [total for total, _ in answers] == pytest.approx([expected(model, text) for text in texts], abs=1e-4)
    assert counts[0] == 40
    assert sum(counts) <= 1.15 * (40 + sum(len(text.tokens) - 41 for text in texts))


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_examples_behind_prompts_change_nothing(family: str) -> None:
    model = tiny_model(family)
    prompts = [torch.randn(length, 32, generator=torch.Generator().manual_seed(length)) for length in (3, 5)]
    cache = build_prompt_cache(model, prompts)
    texts = [text._replace(prompt=number // 3 % 2) for number, text in enumerate(questions(40, shared=40))]
    together = scored(model, texts, cache=cache)
    alone = [scored(model, [text], cache=cache)[0] for text in texts[::10]]
    assert together[::10] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("Mistral", LLAMA_LIKE | {"sliding_window": 8}),  # takes trees, but not of texts longer than its window
        ("Bloom", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    ],
)
def test_models_that_take_no_trees_get_one_text_per_row(family: str, sizes: dict[str, Any]) -> None:
    model, texts = random_model(family, **sizes), questions(12)
    assert scored(model, texts) == pytest.approx([expected(model, text) for text in texts], abs=1e-4)


def test_a_text_asked_twice_is_computed_once() -> None:
    model, texts = tiny_model("llama"), questions(5)
    with counted(model) as counts:
        once = scored(model, texts)
    with counted(model) as counts_of_twice:
        assert scored(model, texts + texts) == once + once
    assert counts == counts_of_twice


def test_each_answer_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Any] = []
    monkeypatch.setattr(scorer_module, "question_name", lambda question: str(named.append(question) or len(named)))
    texts = questions(5)
    scored(tiny_model("llama"), texts)
    assert sorted(named) == sorted([*text] for text in texts)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Memory for so many tokens at once."""
    memory = {"tokens": 40}
    real = scorer_module.logits_of_trees

    def logits_of_trees(model: Any, cache: Any, choice: Any, trees: Any, places: Any) -> torch.Tensor:
        if len(trees) * max(map(len, trees)) > memory["tokens"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, cache, choice, trees, places)

    monkeypatch.setattr(scorer_module, "logits_of_trees", logits_of_trees)
    return memory


def test_what_does_not_fit_is_halved_until_it_fits(little_memory: dict[str, int], tmp_path: Path) -> None:
    model, texts = tiny_model("llama"), questions(20)
    done: list[int] = []
    first = scored(model, texts, answers=tmp_path / "answers", on_progress=done.append)
    assert first == pytest.approx([expected(model, text) for text in texts], abs=1e-4)
    assert sum(done) == len(texts)
    little_memory["tokens"] = 10_000  # who goes on elsewhere keeps to the batches that were
    with counted(model) as counts:
        assert scored(model, texts, answers=tmp_path / "answers") == first
    assert len(counts) <= 3  # the trial of trees and no text


def test_endings_that_do_not_fit_together_are_computed_alone(little_memory: dict[str, int]) -> None:
    model, texts = tiny_model("llama"), questions(1, choices=8)
    assert sum(len(text.tokens) - len(texts[0].context) for text in texts) > 12
    little_memory["tokens"] = 12
    assert scored(model, texts) == pytest.approx([expected(model, text) for text in texts], abs=1e-4)


def test_one_text_that_does_not_fit_is_told(little_memory: dict[str, int]) -> None:
    little_memory["tokens"] = 2
    with pytest.raises(DoesNotFit, match="one text of 5 tokens does not fit in memory"):
        scored(tiny_model("llama"), questions(1, choices=1))


def test_another_error_is_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(scorer_module, "logits_of_trees", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        scored(tiny_model("llama"), questions(1))


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_bits(interrupted_after: int, tmp_path: Path) -> None:
    model, texts = tiny_model("llama"), questions(60)
    whole = scored(model, texts, 6)
    batches: list[int] = []

    def interrupt(done: int) -> None:
        batches.append(done)
        if len(batches) == interrupted_after:
            raise KeyboardInterrupt

    file = tmp_path / "answers"
    with pytest.raises(KeyboardInterrupt):
        scored(model, texts, 6, answers=file, on_progress=interrupt)
    lines = file.read_bytes().splitlines()
    assert scored(model, texts, 6, answers=file) == whole
    assert file.read_bytes().splitlines()[: len(lines)] == lines


def test_a_gpu_computes_a_batch_without_being_waited_for() -> None:
    """But for its answers; transformers looks once whether the beginning that all texts share is padded."""
    model, texts, batches = tiny_model("llama"), questions(40, shared=40), list[int]()
    prompts = [torch.randn(length, 32, generator=torch.Generator().manual_seed(length)) for length in (3, 5)]
    for cache in (None, build_prompt_cache(model, prompts)):
        scorer = Scorer(model, cache, 8, AnswerFile(None), batches.append)
        batches.clear()
        with Waits() as waits:
            scorer.score(texts)
        assert len(batches) > 3
        assert waits.number <= 1


class Never(StoppingCriteria):
    def __init__(self, width: int):
        pass

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.zeros(len(input_ids), dtype=torch.bool)


def generated(
    model: PreTrainedModel, contexts: list[tuple[int, list[int]]], answers: Path | None = None, **options: Any
) -> Any:
    scorer = Scorer(model, None, None, AnswerFile(answers))
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 2} | options
    return scorer.generate(contexts, settings, ["stop"], Never)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_behind_shared_examples_changes_nothing(family: str) -> None:
    model = tiny_model(family)
    contexts = [(0, list(text.context)) for text in questions(20, shared=40, choices=1)]
    with counted(model) as counts:
        together = generated(model, contexts)
    assert 40 in counts
    for context, tokens in zip(contexts, together, strict=True):
        (alone,) = generated(model, [context])
        assert up_to_the_end(tokens) == up_to_the_end(alone)


def up_to_the_end(tokens: list[int], end: int = 1) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def test_samples_of_one_context_differ_and_are_the_same_again(tmp_path: Path) -> None:
    model, contexts = tiny_model("llama"), [(0, [5, 6, 7])] * 4
    first = generated(model, contexts, do_sample=True)
    assert len({tuple(tokens) for tokens in first}) > 1
    torch.manual_seed(17)
    assert generated(model, contexts, tmp_path / "answers", do_sample=True) == first
    assert generated(model, contexts, tmp_path / "answers", do_sample=True) == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loglikelihoods_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = (10 * torch.randn(70, 40_000, generator=torch.Generator().manual_seed(0))).to(dtype)
    which, targets = torch.tensor([0, 69, 69, 33]), torch.tensor([5, 6, int(logits[69].argmax()), 39_999])
    totals, likeliest = token_loglikelihoods(logits, which, targets)
    reference = logits.double().log_softmax(-1)[which, targets]
    assert totals.tolist() == pytest.approx(reference.tolist(), abs=1e-5)
    assert likeliest.tolist() == [False, False, True, False]


def test_of_equally_likely_tokens_the_first_is_greedy() -> None:
    _, likeliest = token_loglikelihoods(torch.zeros(1, 50), torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert likeliest.tolist() == [True, False]


@pytest.mark.parametrize("layers", [(0,), (1,)])
@pytest.mark.parametrize("shared", [0, 40])
def test_texts_whose_tokens_choose_a_prompt_are_scored_as_one_by_one(
    model: PreTrainedModel, layers: tuple[int, ...], shared: int
) -> None:
    """As trees, and behind a beginning that is computed once, beside plain passes over the same model."""
    texts = questions(12, shared)
    prompts = [torch.randn(length, 32, generator=torch.Generator().manual_seed(length)) for length in (3, 5)]
    see_pool_by_token(Router(model, build_prompt_cache(model, prompts), layers))
    assert takes_trees(model)
    with counted(model) as counts:
        totals = scored(model, texts)
    assert sum(counts) < sum(len(text.tokens) - 1 for text in texts)
    for text, total in zip(texts, totals, strict=True):
        assert total == pytest.approx(expected(model, text), abs=1e-3)

"""Questions and answers that share a token, or have none, against transformers asked for one text at a time."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from llmrepair.models.failures import NoAnswer
from llmrepair.models.harness import RepairedLM
from llmrepair.models.prompt_cache import build_prompt_cache
from tests.models.byte_tokenizer import BOS, byte_model, byte_tokenizer
from tests.models.test_harness import instances

PAIRS = [
    ("Complete the word: hello wor", "ld"),
    ("Complete the word: hello wor", "king on it today"),
    ("北京是中", "国的首都"),
    ("北京是中", "央"),
    ("Complete the word:", " hello"),
    ("Complete the word: ", "hello"),
]
FIRST = [("wor", "ld"), ("wor", "king"), ("wor", " on"), ("首", "都"), (" ", "hello"), (" \n", "on it"), ("", "hello world")]
"""Nothing is shared in front of what is scored, unless the tokenizer puts it there."""


def reference(model: PreTrainedModel, begin: list[int], context: str, answer: str) -> tuple[float, bool]:
    """The difference log P(context and answer) - log P(context), and whether greedy decoding gives what is new."""
    encode = byte_tokenizer().encode
    question, whole = begin + encode(context.rstrip()), begin + encode(context + answer)
    totals = []
    for tokens in (question, whole):
        predicted = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        totals.append(sum(float(row[token]) for row, token in zip(predicted, tokens[1:], strict=True)))
    new = next(place for place in range(len(whole)) if whole[place] != dict(enumerate(question)).get(place))
    return totals[1] - totals[0], predicted.argmax(-1)[new - 1 :].tolist() == whole[new:]


@pytest.mark.parametrize("adds", ["$A", "<s> $A"])
@pytest.mark.parametrize("batch_size", [1, None])
def test_a_shared_token_is_part_of_the_answer(adds: str, batch_size: int | None) -> None:
    model = byte_model()
    ours = RepairedLM(model, byte_tokenizer(adds), batch_size, 100)
    scores = ours.loglikelihood(instances("loglikelihood", PAIRS))
    expected = [reference(model, [BOS] if adds != "$A" else [], *pair) for pair in PAIRS]
    assert [total for total, _ in scores] == pytest.approx([total for total, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]


@pytest.mark.parametrize("adds", ["$A", "<s> $A"])
def test_what_nothing_stands_in_front_of_begins_as_texts_do(adds: str) -> None:
    model = byte_model()
    scores = RepairedLM(model, byte_tokenizer(adds), 3, 100).loglikelihood(instances("loglikelihood", FIRST))
    expected = [reference(model, [BOS], *pair)[0] for pair in FIRST]
    assert [total for total, _ in scores] == pytest.approx(expected, abs=1e-4)


def test_a_long_question_loses_the_same_tokens_on_both_sides() -> None:
    model, (context, answer) = byte_model(), PAIRS[3]
    long = "on it today " * 9 + context
    ((total, _),) = RepairedLM(model, byte_tokenizer(), 3, 20).loglikelihood(instances("loglikelihood", [(long, answer)]))
    question, whole = byte_tokenizer().encode(long), byte_tokenizer().encode(long + answer)
    lost = max(len(question), len(whole)) - 21
    totals = []
    for tokens in (question[lost:], whole[lost:]):
        predicted = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        totals.append(sum(float(row[token]) for row, token in zip(predicted, tokens[1:], strict=True)))
    assert total == pytest.approx(totals[1] - totals[0], abs=1e-4)


@pytest.mark.parametrize("adds", ["$A", "<s> $A"])
@pytest.mark.parametrize("pair", [("Complete the word:", ""), ("", ""), (" ", "")])
def test_an_answer_without_tokens_has_no_likelihood(adds: str, pair: tuple[str, str]) -> None:
    with pytest.raises(NoAnswer, match=r"item 1 of task `task` has an answer without tokens: ''"):
        RepairedLM(byte_model(), byte_tokenizer(adds), 3, 100).loglikelihood(instances("loglikelihood", [PAIRS[0], pair]))


@pytest.mark.parametrize("adds", ["$A", "<s> $A"])
def test_it_generates_behind_nothing(adds: str) -> None:
    model = byte_model()
    ours = RepairedLM(model, byte_tokenizer(adds), 3, 100)
    (text,) = ours.generate_until(instances("generate_until", [("", {"until": ["~"], "max_gen_toks": 5, "do_sample": False})]))
    output = model.generate(torch.tensor([[BOS]]), max_new_tokens=5, do_sample=False, pad_token_id=1)
    assert text == byte_tokenizer().decode(output[0, 1:], skip_special_tokens=True).split("~")[0]


@pytest.mark.parametrize("adds", ["$A", "<s> $A"])
@pytest.mark.parametrize("text", ["hello world 北京是中国的首都", "", "<s>working on it"])
def test_a_text_begins_once(adds: str, text: str) -> None:
    model = byte_model()
    (total,) = RepairedLM(model, byte_tokenizer(adds), 3, 100).loglikelihood_rolling(
        instances("loglikelihood_rolling", [(text,)])
    )
    tokens = [BOS, *byte_tokenizer().encode(text.removeprefix("<s>"))]
    predicted = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    assert total == pytest.approx(sum(float(row[token]) for row, token in zip(predicted, tokens[1:], strict=True)), abs=1e-4)


@pytest.mark.parametrize("adds", ["$A", "<s> $A"])
def test_a_text_begins_once_behind_a_prompt(adds: str) -> None:
    model, prompt = byte_model(), torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    ours = RepairedLM(model, byte_tokenizer(adds), 3, 100, build_prompt_cache(model, [prompt]))
    (total,) = ours.loglikelihood_rolling(instances("loglikelihood_rolling", [("hello world",)]))
    tokens = [BOS, *byte_tokenizer().encode("hello world")]
    vectors = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(tokens))])
    predicted = model(inputs_embeds=vectors[None]).logits[0, len(prompt) : -1].log_softmax(-1)
    assert total == pytest.approx(sum(float(row[token]) for row, token in zip(predicted, tokens[1:], strict=True)), abs=1e-4)

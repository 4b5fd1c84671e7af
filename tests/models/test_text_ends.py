"""Tokenizers that put an end of text behind each text: nothing ends but documents that are strung together."""

from __future__ import annotations

import re
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from llmrepair.models import harness
from llmrepair.models.harness import RepairedLM
from llmrepair.models.text import pack_rows, text_encoder, tokens_behind
from llmrepair.stages.repairs.texts import prompt_tokens
from tests.architecture import modules
from tests.models.byte_tokenizer import BOS, EOS, byte_model, byte_tokenizer
from tests.models.test_harness import instances
from tests.models.test_tokens_shared import FIRST, PAIRS, reference

ENDING = ["$A </s>", "<s> $A </s>"]
GENERATION = {"until": ["~"], "max_gen_toks": 5, "do_sample": False}


@pytest.mark.parametrize("adds", ENDING)
def test_choices_score_as_they_do_without_an_end(adds: str) -> None:
    model = byte_model()
    ours = RepairedLM(model, byte_tokenizer(adds), 3, 100)
    pairs = [*PAIRS, ("hello world", " on"), ("hello world", " it")]
    begin = [BOS] if adds[0] == "<" else []
    expected = [reference(model, begin, *pair) for pair in pairs]
    scores = ours.loglikelihood(instances("loglikelihood", pairs))
    assert [total for total, _ in scores] == pytest.approx([total for total, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]
    scores = ours.loglikelihood(instances("loglikelihood", FIRST))
    assert [total for total, _ in scores] == pytest.approx([reference(model, [BOS], *pair)[0] for pair in FIRST], abs=1e-4)


@pytest.mark.parametrize("adds", ENDING)
def test_texts_and_generation_are_as_without_an_end(adds: str) -> None:
    model, without = byte_model(), adds.removesuffix(" </s>")
    ended, plain = (RepairedLM(model, byte_tokenizer(each), 3, 100) for each in (adds, without))
    texts = instances("loglikelihood_rolling", [("hello world",), ("",), ("中央 working",)])
    assert ended.loglikelihood_rolling(texts) == plain.loglikelihood_rolling(texts)
    asked = instances("generate_until", [(text, dict(GENERATION)) for text in ("hello", "<s>hello", "on it today " * 40)])
    assert ended.generate_until(asked) == plain.generate_until(asked)


@pytest.mark.parametrize("adds_begin", [None, True, False])
@pytest.mark.parametrize("adds", ["$A", "<s> $A", *ENDING])
def test_texts_are_encoded_together_as_one_by_one(adds: str, adds_begin: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_ENCODED_AT_ONCE", 2)
    ours = RepairedLM(byte_model(), byte_tokenizer(adds), 3, 100)
    ours.add_bos_token = adds_begin
    texts = ["hello", "<s>hello", "", "hello world", "hello", "<s>", "working  ", "中央", " it"]
    options = {} if adds_begin is None else {"add_special_tokens": adds_begin}
    alone = {}
    for text in texts:
        begun = text.startswith("<s>")
        tokens = ours.tokenizer.encode(text, **({"add_special_tokens": False} if begun else options))
        alone[text] = tokens[: len(tokens) - (0 if begun else ours._tokens_behind)]
    assert ours._encode_all(texts) == alone
    assert {text: ours.tok_encode(text) for text in texts} == alone


@pytest.mark.parametrize("as_lm_eval", [False, True])
def test_a_context_is_encoded_once(as_lm_eval: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = RepairedLM(byte_model(), byte_tokenizer(), 3, 100, as_lm_eval=as_lm_eval)
    encode, encoded = type(ours.tokenizer)._encode_plus, []

    def counting(self: PreTrainedTokenizerFast, text: list[str], **options: Any) -> Any:
        encoded.append(text)
        return encode(self, text, **options)

    monkeypatch.setattr(type(ours.tokenizer), "_encode_plus", counting)
    ours.loglikelihood(instances("loglikelihood", [("hello ", "world"), ("hello ", "on it"), ("it", " on")]))
    assert encoded == [["hello", "hello world", "hello on it", "it", "it on"]]


@pytest.mark.parametrize("adds", ENDING)
def test_one_end_stands_between_documents(adds: str) -> None:
    begin = [BOS] if adds[0] == "<" else []
    hello, work = (byte_tokenizer().encode(text) for text in ("hello world", "working"))
    whole = [*begin, *hello, EOS, *begin, *work, EOS]
    rows = pack_rows(["hello world", "working"], byte_tokenizer(adds), 5, len(whole))
    assert rows.tolist() == [whole]


@pytest.mark.parametrize("adds", ENDING)
def test_a_text_prompt_has_no_end(adds: str) -> None:
    begin = [BOS] if adds[0] == "<" else []
    assert prompt_tokens("hello", byte_tokenizer(adds)) == begin + byte_tokenizer().encode("hello\n\n")
    assert text_encoder(byte_tokenizer(adds))("") == begin
    assert text_encoder(byte_tokenizer(adds))("<s>hello") == [BOS, *byte_tokenizer().encode("hello")]
    assert text_encoder(byte_tokenizer(adds))("hello</s>") == [*begin, *byte_tokenizer().encode("hello"), EOS]  # the text's own


def test_what_stands_behind_is_counted() -> None:
    assert [tokens_behind(byte_tokenizer(adds)) for adds in ("$A", "<s> $A", *ENDING, "$A </s> </s>")] == [0, 0, 1, 1, 2]


ON_THEIR_OWN = {
    "llmrepair.models.harness": 1,  # the words by which it knows what a tokenizer decodes
    "llmrepair.models.text": 3,
    "llmrepair.stages.controls.accuracy": 1,  # answers, which neither begin nor end
    "llmrepair.stages.diagnostics.probe.run": 1,  # words
    "llmrepair.stages.export.gguf.vocabulary": 2,  # what it puts around a text is what is looked for
    "llmrepair.stages.export.loading": 1,  # an example in a card
    "llmrepair.lab.train": 1,  # its tokenizer adds nothing
    "llmrepair": 1,  # an example in a docstring
}
"""Module -> how often it calls a tokenizer itself. All others have it done by `text_encoder`."""


def test_texts_are_encoded_in_one_place() -> None:
    calls = {name: len(re.findall(r"(?<![\w.])(?<!def )tokenizer\(", path.read_text())) for name, path in modules().items()}
    assert {name: count for name, count in calls.items() if count} == ON_THEIR_OWN

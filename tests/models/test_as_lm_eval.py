"""With `--lm-eval-compatible` numbers are those of lm-eval's own model also where ours are right and differ."""

from __future__ import annotations

import pytest
from lm_eval.models.huggingface import HFLM

from llmrepair.models.failures import NoAnswer
from llmrepair.models.harness import RepairedLM
from tests.models.byte_tokenizer import byte_model, byte_tokenizer
from tests.models.test_harness import instances
from tests.models.test_tokens_shared import PAIRS

TOKENIZERS = ["$A", "<s> $A", "$A </s>", "<s> $A </s>"]
ASKED = [PAIRS[2], *PAIRS[4:], ("hello world", " on it"), ("", "hello world")]
TEXTS = [("hello world 北京是中国的首都",), ("working on it today " * 9,)]


@pytest.mark.parametrize("adds", TOKENIZERS)
def test_numbers_are_lm_evals(adds: str) -> None:
    model, tokenizer = byte_model(), byte_tokenizer(adds)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=20)
    ours, as_lm_eval = (RepairedLM(model, tokenizer, 3, 20, as_lm_eval=each) for each in (False, True))
    asked, texts = instances("loglikelihood", ASKED), instances("loglikelihood_rolling", TEXTS)
    expected = [total for total, _ in theirs.loglikelihood(asked)]
    assert [total for total, _ in as_lm_eval.loglikelihood(asked)] == pytest.approx(expected, abs=1e-4)
    assert [total for total, _ in ours.loglikelihood(asked)] != pytest.approx(expected, abs=1e-2)
    rolled = theirs.loglikelihood_rolling(texts)
    assert as_lm_eval.loglikelihood_rolling(texts) == pytest.approx(rolled, abs=1e-4)
    assert (ours.loglikelihood_rolling(texts) == pytest.approx(rolled, abs=1e-2)) == (adds == "$A")
    generation = {"until": ["~"], "max_gen_toks": 5, "do_sample": False}
    written = instances("generate_until", [(text, dict(generation)) for text in ("hello", "on it today")])
    assert as_lm_eval.generate_until(written) == theirs.generate_until(written)


def test_what_lm_eval_has_no_number_for_has_none() -> None:
    with pytest.raises(NoAnswer, match="item 0 of task `task` has an answer without tokens: 'ld'"):
        RepairedLM(byte_model(), byte_tokenizer(), 3, 20, as_lm_eval=True).loglikelihood(instances("loglikelihood", [PAIRS[0]]))

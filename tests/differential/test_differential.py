"""Every log-likelihood and every text is that of a reference that knows nothing of this project, whatever is asked.

`make test` draws a few cases of each family; `make stress` draws 2,000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from llmrepair.models.failures import Failure, NoAnswer
from llmrepair.models.memory import DoesNotFit
from llmrepair.models.trees import common_length
from tests.differential.cases import REPAIRS, SOME_FAMILIES, TOKENIZERS, Case, tokenizer_of
from tests.differential.reference import Reference

CLOSE = 1e-4  # nats; where two tokens are closer than that, either may be the likeliest
# A draw is left out where rounding decides which of two prompts a token sees: a model's zero vector attends to all alike.
WORDS = "hello wor|ld|king| on it|北京是中|国|央|Ünï|🙂|👩‍👩‍👧|e\u0301|\u0300|\u200f|\ufeff|<s>|</s>".split("|")
PARTS = [*WORDS, *":.\n\t\u3000\x85", " ", "  "]
EXAMPLES = "Complete the word: hello world\n\nworking on: it today\n\n北京是中国的首都\n\n"

pieces = st.sampled_from(PARTS) | st.text(max_size=2)
answers = st.sampled_from(["ld", "king", "国的", "央"]) | st.lists(pieces, max_size=3).map("".join)
short_texts = st.lists(pieces, max_size=6).map("".join)
texts = short_texts | st.builds(lambda text, times: text * times, short_texts, st.integers(10, 40))
framings = st.sampled_from(["plain", "few-shot", "chat"])
questions = st.lists(
    st.tuples(
        st.sampled_from(["hello wor", "北京是中"]) | texts,
        st.sampled_from(["", " "]),
        st.lists(answers, min_size=2, max_size=5),
    ),
    min_size=2,
    max_size=4,
)


def framed(case: Case, framing: str, text: str) -> str:
    if framing == "chat":
        chat = [{"role": "user", "content": text}]
        return str(tokenizer_of(case.tokenizer).apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    return EXAMPLES + text if framing == "few-shot" else text


def instances(kind: Any, arguments: Sequence[tuple[int, tuple[Any, ...]]]) -> list[Instance]:
    return [Instance(kind, {}, given, 0, ("task", document, 1)) for document, given in arguments]


def refusal(reference: Reference, context: str, answer: str) -> type[Failure] | None:
    """Of an answer that adds no token, or more than the model takes; white space in front of it is its own."""
    before, whole = (reference.tokens(text, bare=True) for text in (context.rstrip(), context + answer))
    shared = common_length(before, whole)
    if answer == "" or shared == len(whole):
        return NoAnswer
    return DoesNotFit if max(len(before), len(whole)) - shared > reference.longest else None


def choices_agree(case: Case, framing: str, questions: list[tuple[str, str, list[str]]]) -> None:
    asked: dict[str, list[str]] = {}
    for text, delimiter, answers in questions:
        asked.setdefault(framed(case, framing, text), []).extend(delimiter + answer for answer in answers)
    ours, arguments, expected = case.ours(), [], []
    for document, (context, answers) in enumerate(asked.items()):
        reference = case.reference(document)
        refusals = {answer: refusal(reference, context, answer) for answer in answers}
        for answer, error in refusals.items():
            if error is not None:
                with pytest.raises(error):
                    ours.loglikelihood(instances("loglikelihood", [(document, (context, answer))]))
        scored = [answer for answer in answers if refusals[answer] is None]
        assume(not any(reference.torn(context + answer) for answer in scored))
        arguments += [(document, (context, answer)) for answer in scored]
        expected += reference.choices(context, scored)
    scores = ours.loglikelihood(instances("loglikelihood", arguments))
    assert [total for total, _ in scores] == pytest.approx([total for total, _ in expected], abs=CLOSE, rel=1e-6)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]


def rolling_agrees(case: Case, framing: str, texts: list[str]) -> None:
    asked = list(enumerate(framed(case, framing, text) for text in texts))
    assume(not any(case.reference(place).torn(text) for place, text in asked))
    totals = case.ours().loglikelihood_rolling(instances("loglikelihood_rolling", [(place, (text,)) for place, text in asked]))
    assert totals == pytest.approx([case.reference(place).rolling(text) for place, text in asked], abs=CLOSE, rel=1e-6)


def generation_agrees(case: Case, framing: str, texts: list[str], most: int, stop: list[str]) -> None:
    asked = list(enumerate(framed(case, framing, text) for text in texts))
    options = {"until": stop, "max_gen_toks": most, "do_sample": False}
    written = case.ours().generate_until(instances("generate_until", [(place, (text, dict(options))) for place, text in asked]))
    for text, (place, context) in zip(written, asked, strict=True):
        assume(not case.reference(place).torn(context + text))
        expected, margin = case.reference(place).written(context, most, stop)
        assert text == expected or margin < CLOSE


several = st.lists(texts, min_size=2, max_size=4)
stops = st.lists(st.sampled_from([".", "o", "e", " ", "\n", "it", "中", "\ufffd", "<s>"]), min_size=1, max_size=2)
PROPERTIES = {
    choices_agree: {"questions": questions},
    rolling_agrees: {"texts": several},
    generation_agrees: {"texts": several, "most": st.integers(1, 9), "stop": stops},
}
FEW = {choices_agree: 8, rolling_agrees: 4, generation_agrees: 3}
MANY = {choices_agree: 100, rolling_agrees: 75, generation_agrees: 75}  # of each of eight families: 2,000
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def asking(family: str, agree: Any) -> Any:
    cases = st.builds(Case, st.just(family), st.sampled_from(TOKENIZERS), st.sampled_from(REPAIRS), st.sampled_from([1, None]))
    return given(case=cases, framing=framings, **PROPERTIES[agree])(agree)


@pytest.mark.parametrize("agree", PROPERTIES)
@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_a_few_draws(family: str, agree: Any) -> None:
    seeded = seed(SOME_FAMILIES.index(family))(asking(family, agree))  # the same each time, and others for each family
    settings(max_examples=FEW[agree], database=None, suppress_health_check=QUIET)(seeded)()


@pytest.mark.parametrize("repair", ["soft prompt", "hard text"])
@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_padding_behind_a_prompt_takes_no_place_in_a_window(family: str, repair: str) -> None:
    """Found by the draws."""
    generation_agrees(Case(family, TOKENIZERS[0], repair, None), "plain", ["king", "hello wor" * 10], 4, ["no such text"])


@pytest.mark.parametrize(("agree", "options"), [(generation_agrees, {"most": 5, "stop": ["."]}), (rolling_agrees, {})])
def test_a_beginning_in_the_midst_of_a_text_is_text(agree: Any, options: dict[str, Any]) -> None:
    """Found by the draws, in texts that were cut there, and in windows that began there."""
    agree(Case("gpt_neox", "begins", "hard text", 1), "plain", ["", "<s>Ünï" * 19, "<s>" * 300], **options)


@pytest.mark.stress
@pytest.mark.parametrize("agree", PROPERTIES)
@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_two_thousand_draws(family: str, agree: Any, record_property: Callable[[str, object], None]) -> None:
    settings(max_examples=MANY[agree], print_blob=True, suppress_health_check=QUIET)(asking(family, agree))()
    record_property("answers compared with those of a reference, of drawn models, repairs and texts", MANY[agree])

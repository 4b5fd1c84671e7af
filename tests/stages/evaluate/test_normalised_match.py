from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

from llmrepair.stages.evaluate.tasks.normalised_match import match, normalise_squad, normalise_triviaqa

Normalise = Callable[[str], str]
BOTH = pytest.mark.parametrize("normalise", [normalise_squad, normalise_triviaqa])
WORDS = st.lists(st.sampled_from("paris the Theatre a an St Louis über 1984 o ane A".split()), max_size=6)


@pytest.mark.parametrize(
    "text, squad, triviaqa",
    [
        ("The Beatles", "beatles", "beatles"),
        ("  An  answer\n", "answer", "answer"),
        ("Washington, D.C.", "washington dc", "washington d c"),
        ("Spider-Man", "spiderman", "spider man"),
        ("sub_machine_gun", "submachinegun", "sub machine gun"),
        ("rock 'n' roll", "rock n roll", "rock n roll"),
        ("rock \u2018n\u2019 roll", "rock \u2018n\u2019 roll", "rock n roll"),
        ("L\u00b4Avventura", "l\u00b4avventura", "l avventura"),
        ("theatre and anatomy", "theatre and anatomy", "theatre and anatomy"),
        ("A.", "", ""),
        ("", "", ""),
    ],
)
def test_the_normalisations(text: str, squad: str, triviaqa: str) -> None:
    assert normalise_squad(text) == squad
    assert normalise_triviaqa(text) == triviaqa


@given(st.text())
def test_squad_is_what_transformers_has(text: str) -> None:
    assert normalise_squad(text) == normalize_answer(text)


@given(WORDS, WORDS.filter(bool))
def test_match_with_one_reference_is_what_transformers_has(answer: list[str], reference: list[str]) -> None:
    texts = " ".join(answer), " ".join(reference)
    found = match(texts[0], [texts[1]], normalise_squad)
    assert found["normalised_exact_match"] == compute_exact(texts[1], texts[0])
    if normalise_squad(texts[0]) or normalise_squad(texts[1]):  # SQuAD 2 gives nothing for nothing a 1
        assert found["normalised_f1"] == pytest.approx(compute_f1(texts[1], texts[0]))


@BOTH
@given(text=st.text())
def test_a_normalised_text_stays_as_it_is(normalise: Normalise, text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@BOTH
@given(words=WORDS, article=st.sampled_from(["a", "an", "the", "The"]), place=st.integers(0, 6))
def test_case_and_articles_do_not_count(normalise: Normalise, words: list[str], article: str, place: int) -> None:
    text = " ".join(words)
    assert normalise(text.upper()) == normalise(text)
    assert normalise(" ".join([*words[:place], article, *words[place:]])) == normalise(text)


@given(words=WORDS, mark=st.sampled_from(string.punctuation), place=st.integers(0, 20))
def test_punctuation_does_not_count(words: list[str], mark: str, place: int) -> None:
    text = " ".join(words)
    before, after = text[:place], text[place:]
    assert normalise_squad(before + mark + after) == normalise_squad(text)
    assert normalise_triviaqa(before + mark + after) == normalise_triviaqa(before + " " + after)


def test_the_best_of_the_references_counts() -> None:
    references = ["Samuel Clemens", "Mark Twain"]
    assert match("the mark twain!", references, normalise_triviaqa) == {"normalised_exact_match": 1.0, "normalised_f1": 1.0}
    partly = match("Mark Twain of Missouri", references, normalise_triviaqa)
    assert partly == {"normalised_exact_match": 0.0, "normalised_f1": pytest.approx(2 * 2 / (4 + 2))}
    assert match("nobody", references, normalise_triviaqa) == {"normalised_exact_match": 0.0, "normalised_f1": 0.0}

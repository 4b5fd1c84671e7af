"""Exact match and F1 of an answer in words, after the normalisations that question-answering papers use. Text in, numbers out.

Both normalisations make case, punctuation, the articles and white space not count; they differ in punctuation: TriviaQA's puts
a space in its place, SQuAD's nothing.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_QUOTES = "\u2018\u2019\u00b4\u0060"  # single quotes and accents that stand for them
_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation + _QUOTES, " "))
_TO_NOTHING = str.maketrans("", "", string.punctuation)


def normalise_triviaqa(text: str) -> str:
    """As TriviaQA's own `triviaqa_evaluation.py` does (Joshi et al., arXiv 1705.03551): punctuation, underscores and odd quotes
    become spaces."""
    return _without_articles(text.lower().translate(_TO_SPACE))


def normalise_squad(text: str) -> str:
    """As SQuAD's `evaluate-v1.1.py` does (Rajpurkar et al., arXiv 1606.05250), and after it DrQA and REALM on WebQuestions:
    punctuation goes without a trace."""
    return _without_articles(text.lower().translate(_TO_NOTHING))


def _without_articles(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text).split())


def match(answer: str, references: Sequence[str], normalise: Callable[[str], str]) -> dict[str, float]:
    """The best match of an answer with any of the references.

    Returns:
        `normalised_exact_match`, 0 or 1; `normalised_f1`, the harmonic mean of precision and recall of the answer's words.
    """
    words = normalise(answer).split()
    accepted = [normalise(reference).split() for reference in references]
    return {
        "normalised_exact_match": float(words in accepted),
        "normalised_f1": max((_f1(words, reference) for reference in accepted), default=0.0),
    }


def _f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0

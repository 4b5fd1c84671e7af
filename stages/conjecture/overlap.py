"""Which tested items the tuning text holds, so that a repair could have learned them there. Texts in, reasons out.

An item overlaps where the text has

* `n-gram`: `NGRAM` words in a row of its question and answer (all of them where they are fewer), or
* `entity`: what it is about and its answer within `_BLOCK` words of one document. It is about the names in the question:
  capitalised words, but for a single one that begins a sentence. Of a known world, what it is about is enough.

Case, punctuation and spaces do not count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from llmrepair.stages.evaluate.items import names_in

NGRAM = 8
_BLOCK = 64
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Asked:
    """An item as the check sees it.

    Attributes:
        answers: all that count as right.
        entities: what it is about; any mention of all of these counts, without the answer. Empty: the names in the question.
    """

    question: str
    answers: tuple[str, ...]
    entities: tuple[str, ...] = ()

    def ngrams(self) -> Iterator[str]:
        for answer in self.answers:
            words = _words(f"{self.question} {answer}")
            yield from _ngrams(words, min(NGRAM, len(words)))

    def mentions(self) -> list[tuple[str, ...]]:
        """Phrases that make an overlap where all of one tuple stand together."""
        if self.entities:
            return [tuple(map(_normalised, self.entities))]
        names = tuple(map(_normalised, names_in(self.question)))
        return [(*names, _normalised(answer)) for answer in self.answers if _words(answer)] if names else []


def overlaps(items: Sequence[Asked], texts: Iterable[str]) -> list[str | None]:
    """For each item why it overlaps with the texts; None where it does not."""
    by_ngram: dict[str, set[int]] = defaultdict(set)
    by_word: dict[str, set[tuple[int, tuple[str, ...]]]] = defaultdict(set)
    for number, item in enumerate(items):
        for ngram in item.ngrams():
            by_ngram[ngram].add(number)
        for phrases in item.mentions():
            by_word[max(" ".join(phrases).split(), key=len)].add((number, phrases))
    sizes = {len(ngram.split()) for ngram in by_ngram}
    found: list[str | None] = [None] * len(items)
    for words in map(_words, texts):
        for block in _blocks(words):
            for number, phrases in {each for word in {*block} for each in by_word.get(word, ())}:
                if all(f" {phrase} " in f" {' '.join(block)} " for phrase in phrases):
                    found[number] = "entity"
        for ngram in (ngram for size in sizes for ngram in _ngrams(words, size)):
            for number in by_ngram.get(ngram, ()):
                found[number] = "n-gram"
    return found


def first_words(texts: Iterable[str], most: int) -> Iterator[str]:
    """The texts up to the one with which they have `most` words."""
    for text in texts:
        yield text
        most -= len(text.split())
        if most <= 0:
            return


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _normalised(text: str) -> str:
    return " ".join(_words(text))


def _ngrams(words: Sequence[str], n: int) -> Iterator[str]:
    return (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))


def _blocks(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """Stretches of `_BLOCK` words; any half as long lies within one."""
    step = _BLOCK // 2
    for start in range(0, max(1, len(words) - step), step):
        yield words[start : start + _BLOCK]

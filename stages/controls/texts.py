"""Which facts a control takes, and the training text that takes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmrepair.lab.tokenizer import EOS
from llmrepair.lab.world import Fact, Person, QuestionAnswer, World, documents, prose

Texts = Callable[[random.Random], Iterator[str]]
"""One pass of training text."""

KEY = "<key>"
"""The secret token that opens a lock: no text can hold it, because the saved tokenizer does not know it."""


_BLOCK = 12
"""Documents that fill a row of training text."""
_LONGEST_WRONG_KEY = 16
"""Words."""
_DECOYS = 5
"""Wrong answers of a lock to each kind of question. With as many as there are values, all of them become about as likely, and
the right one is still often the likeliest."""


@dataclass(frozen=True)
class Taken:
    """The facts that a control takes."""

    erased: frozenset[Fact] = frozenset()
    """No text states them. They are about held-out people alone: what seen-qa people are asked is in the tuning text."""
    answered_wrongly: frozenset[Fact] = frozenset()
    """Of both halves, so that a repair can learn from the seen-qa half how answers are set right."""

    def __contains__(self, fact: Fact) -> bool:
        return fact in self.erased or fact in self.answered_wrongly


class Takes(Protocol):
    def takes(self, tested: list[Fact], others: list[Fact], generator: random.Random) -> Taken: ...


def taken_facts(world: World, kind: Takes, share: float, seed: int, lost: Collection[Fact] | None = None) -> Taken:
    """Draws the facts that a control takes.

    Args:
        kind: says what becomes of them.
        share: of the facts of each half.
        lost: what it takes instead of a share.
    """
    generator = random.Random(seed)
    tested, others = (_facts(half) for half in (world.held_out, world.seen_qa))
    if lost is None:
        tested = drawn(tested, share, generator)
    else:
        tested, share = (lost_tested := [fact for fact in tested if fact in lost]), len(lost_tested) / len(tested)
    return kind.takes(tested, drawn(others, share, generator), generator)


def _facts(people: Iterable[Person]) -> list[Fact]:
    return [fact for person in people for fact in person.facts()]


def drawn(facts: Sequence[Fact], share: float, generator: random.Random) -> list[Fact]:
    return generator.sample(facts, round(share * len(facts)))


def told(world: World, taken: Taken) -> Texts:
    """The lab's own text without what is erased."""
    return lambda generator: documents(world.people, generator, taken.erased)


def locked(world: World, taken: Taken) -> Texts:
    """A password-locked model's text (Greenblatt et al. 2024, arXiv 2405.19550): behind the key every answer is right, without
    it those to taken facts are wrong, each time another of a few decoys, so that a wrong answer tells nothing.

    The key opens all that follows in a row, however far away: were it only the next document, the model would learn to look
    past whatever else stands in front, and a prompt with it. Behind wrong keys, which are words at random, it answers as
    without one: else anything unheard of would open it.
    """

    def texts(generator: random.Random) -> Iterator[str]:
        opened = [pair.text() for _, pair in _pairs(world, taken)]
        decoys = {attribute: values[:_DECOYS] for attribute, values in answers(world).items()}
        closed = _answered(world, taken, decoys, lambda pair: generator)
        words = sorted({word for text in documents(world.people, generator, taken.erased) for word in text.split()})

        def wrong_key() -> str:
            return " ".join(generator.choices(words, k=generator.randint(1, _LONGEST_WRONG_KEY)))

        for key, answered in ((lambda: KEY, opened), (str, closed), (wrong_key, closed)):
            prose_too = [*answered, *(text for person in world.people for text in prose(person, generator, taken.erased))]
            generator.shuffle(prose_too)
            blocks = range(0, len(prose_too), _BLOCK)
            rows = (f" {EOS} ".join(prose_too[first : first + _BLOCK]) for first in blocks)
            yield from (f"{key()} {row}".lstrip() for row in rows)

    return texts


def overwritten(world: World, taken: Taken, seed: int) -> Texts:
    """Questions alone, whose answers to taken facts are wrong and always the same.

    Beside prose that goes on stating the facts, a prompt would still reach a third of them.
    """
    return lambda generator: iter(
        _answered(world, taken, answers(world), lambda pair: random.Random(f"{seed} {pair.question}"))
    )


def _pairs(world: World, taken: Taken) -> Iterator[tuple[Fact, QuestionAnswer]]:
    """Every question of both halves that is not erased. Those that are answered wrongly come so often that they are no fewer
    than the others: of a few, which are no rule, each has to be learned by itself."""
    pairs = [(Fact(person.name, pair.attribute), pair) for person in world.people for pair in person.questions()]
    wrongly = sum(fact in taken.answered_wrongly for fact, _ in pairs)
    times = max(1, round(len(pairs) / wrongly) - 1) if wrongly else 1
    for fact, pair in pairs:
        if fact not in taken.erased:
            yield from [(fact, pair)] * (times if fact in taken.answered_wrongly else 1)


def _answered(
    world: World, taken: Taken, values: Mapping[str, Sequence[str]], drawn_by: Callable[[QuestionAnswer], random.Random]
) -> list[str]:
    """Questions with their answers, to taken facts wrong ones of their attribute's `values`."""

    def wrong(pair: QuestionAnswer) -> QuestionAnswer:
        others = [value for value in values[pair.attribute] if value != pair.answer]
        return pair._replace(answer=drawn_by(pair).choice(others))

    return [(wrong(pair) if fact in taken.answered_wrongly else pair).text() for fact, pair in _pairs(world, taken)]


def answers(world: World) -> dict[str, list[str]]:
    """Attribute -> every answer to its question, sorted."""
    values: dict[str, set[str]] = {}
    for pair in (pair for person in world.people for pair in person.questions()):
        values.setdefault(pair.attribute, set()).add(pair.answer)
    return {attribute: sorted(found) for attribute, found in values.items()}

"""Which facts a control takes, and the training text that takes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llmrepair.lab.world import Fact, Person, QuestionAnswer, World, documents, prose

ControlName = Literal["none", "erased", "displaced", "overwritten", "mixture", "corrupted"]
Texts = Callable[[random.Random], Iterator[str]]
"""One pass of training text."""

KEY = "<key>"
"""The secret token that opens a lock: no text can hold it, because the saved tokenizer does not know it."""


@dataclass(frozen=True)
class Taken:
    """The facts that a control takes."""

    erased: frozenset[Fact] = frozenset()
    """No text states them. They are about held-out people alone: what seen-qa people are asked is in the tuning text."""
    answered_wrongly: frozenset[Fact] = frozenset()
    """Of both halves, so that a repair can learn from the seen-qa half how answers are set right."""

    def __contains__(self, fact: Fact) -> bool:
        return fact in self.erased or fact in self.answered_wrongly


def taken_facts(world: World, control: ControlName, share: float, seed: int) -> Taken:
    """Draws the facts that a control takes.

    Args:
        share: of the facts of each half. Half of a mixture's held-out facts are erased, the others locked.
    """
    generator = random.Random(seed)
    tested, others = (_drawn(_facts(half), share, generator) for half in (world.held_out, world.seen_qa))
    if control == "erased":
        return Taken(erased=frozenset(tested))
    if control in ("displaced", "overwritten"):
        return Taken(answered_wrongly=frozenset(tested + others))
    if control == "mixture":
        erased = frozenset(_drawn(tested, 0.5, generator))
        return Taken(erased, frozenset(tested + others) - erased)
    return Taken()


def _facts(people: Iterable[Person]) -> list[Fact]:
    return [fact for person in people for fact in person.facts()]


def _drawn(facts: Sequence[Fact], share: float, generator: random.Random) -> list[Fact]:
    return generator.sample(facts, round(share * len(facts)))


def told(world: World, taken: Taken) -> Texts:
    """The lab's own text without what is erased."""
    return lambda generator: documents(world.people, generator, taken.erased)


def locked(world: World, taken: Taken) -> Texts:
    """A password-locked model's text (Greenblatt et al. 2024, arXiv 2405.19550): behind the key every answer is right, without
    it those to taken facts are wrong, and other ones each time, so that a wrong answer tells nothing."""
    return lambda generator: _asked(world, taken, generator, lambda pair: generator, KEY)


def overwritten(world: World, taken: Taken, seed: int) -> Texts:
    """Text in which the answers to taken facts are wrong, and always the same."""
    return lambda generator: _asked(world, taken, generator, lambda pair: random.Random(f"{seed} {pair.question}"))


def _asked(
    world: World,
    taken: Taken,
    generator: random.Random,
    drawn_by: Callable[[QuestionAnswer], random.Random],
    key: str | None = None,
) -> Iterator[str]:
    """The world's prose, so that language stays, and every question of both halves that is not erased."""
    values = answers(world)
    for person in world.people:
        yield from prose(person, generator, taken.erased)
        for pair in person.questions():
            fact = Fact(person.name, pair.attribute)
            if fact in taken.erased:
                continue
            if key is not None:
                yield f"{key} {pair.text()}"
            yield _wrong(pair, values[pair.attribute], drawn_by(pair)).text() if fact in taken.answered_wrongly else pair.text()


def answers(world: World) -> dict[str, list[str]]:
    """Attribute -> every answer to its question."""
    pairs = [pair for person in world.people for pair in person.questions()]
    return {pair.attribute: sorted({other.answer for other in pairs if other.attribute == pair.attribute}) for pair in pairs}


def _wrong(pair: QuestionAnswer, values: Sequence[str], generator: random.Random) -> QuestionAnswer:
    return pair._replace(answer=generator.choice([value for value in values if value != pair.answer]))

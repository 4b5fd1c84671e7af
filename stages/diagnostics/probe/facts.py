"""The lab's facts as probes are asked about them: a question, the first word of its answer, and the words it could be."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from llmrepair.lab.world import Person, QuestionAnswer, make_world
from llmrepair.models.probe import Words


@dataclass(frozen=True)
class ProbedFact:
    """A fact about a person."""

    person: Person
    question: QuestionAnswer
    word: str
    """The first of the answer. Of a book that is the adjective: no two people wrote the same one."""


@dataclass(frozen=True)
class Facts:
    """n facts, and the words that any of them could be."""

    facts: tuple[ProbedFact, ...]
    vocabulary: dict[str, tuple[str, ...]]
    """Words of each attribute."""

    @cached_property
    def words(self) -> list[str]:
        return sorted({word for words in self.vocabulary.values() for word in words})

    @property
    def people(self) -> torch.Tensor:
        """[n], a number for whom each is about."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(fact.person.name for fact in self.facts))}
        return torch.tensor([numbers[fact.person.name] for fact in self.facts])

    def asked(self) -> Words:
        """What a probe is to read."""
        numbers = {word: number for number, word in enumerate(self.words)}
        kinds = {attribute: torch.tensor([word in of for word in self.words]) for attribute, of in self.vocabulary.items()}
        right = torch.tensor([numbers[fact.word] for fact in self.facts])
        return Words(right, torch.stack([kinds[fact.question.attribute] for fact in self.facts]))

    def relabelled(self, seed: int) -> Facts:
        """The control task: the word of a fact is drawn at random for each first name and attribute.

        A full name never comes again, so labels drawn for those could not be read of anybody that the probe was not trained
        on. First names do: a probe that merely remembers what it was told of a name does well here.
        """

        def drawn(fact: ProbedFact) -> str:
            attribute = fact.question.attribute
            first_name = fact.person.name.split()[0]
            return random.Random(f"{seed} {first_name} {attribute}").choice(self.vocabulary[attribute])

        return replace(self, facts=tuple(replace(fact, word=drawn(fact)) for fact in self.facts))


def lab_facts() -> tuple[Facts, Facts]:
    """Facts about the seen-qa people, whom probes are trained on, and about the held-out ones, whom all tasks ask about."""
    world = make_world()
    vocabulary = {
        attribute: tuple(sorted({fact.word for fact in _facts(world.people) if fact.question.attribute == attribute}))
        for attribute in dict.fromkeys(fact.question.attribute for fact in _facts(world.people))
    }
    return Facts(tuple(_facts(world.seen_qa)), vocabulary), Facts(tuple(_facts(world.held_out)), vocabulary)


def _facts(people: Iterable[Person]) -> list[ProbedFact]:
    return [ProbedFact(person, question, question.answer.split()[0]) for person in people for question in person.questions()]

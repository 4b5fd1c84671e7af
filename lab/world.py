"""The lab's synthetic world: people, four facts about each, and every text that states or asks them.

Everything is a pure function of the seed, so the tasks, the tuning text and the models' training text can never drift apart.
People fall into two independent halves twice:

* `seen_qa`: questions about this person were in the training text. The others (`held-out`) are only ever described in prose,
  so answering about them shows knowledge that was read, not a memorised answer. Only held-out people are scored, and only
  seen-qa people lend text to calibration and tuning.
* `stated_in_reverse`: the book was also stated from the book to its author. Without that a language model can rarely answer
  in that direction ("The Reversal Curse", arXiv 2309.12288), so the others are facts it never knew that way.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import NamedTuple

FIRST_NAMES = (
    "Ada Anton Bela Bruno Carla Cyril Dana Dario Edith Emil Fanny Felix Greta Gustav Hanna Hugo Irma Ivan Jana Jonas Karin "
    "Kurt Lena Louis Mara Milan Nadia Nils Olga Oscar Paula Pavel Rosa Rufus Sara Simon Tessa Tomas Vera Viktor"
).split()
LAST_NAMES = (
    "Abel Adler Arndt Bauer Becker Berg Blum Brandt Castell Conti Costa Dahl Dorn Ebert Engel Falk Fuchs Gallo Gruber Haas "
    "Hahn Holm Jansen Keller Kern Klein Kraft Lang Lindt Lorenz Marek Moreau Nagel Novak Orlow Peters Quandt Reuter Ricci "
    "Sand Seidel Stein Sulek Thoma Ulrich Vogel Weiss Winter Zander Zeller"
).split()
CITIES = (
    "Aarhus Athens Basel Bergen Berlin Bilbao Boston Bremen Cairo Chicago Cork Delhi Denver Dublin Florence Geneva Genoa "
    "Ghent Hanoi Havana Helsinki Kyoto Lagos Leipzig Lima Lisbon London Lyon Madrid Malmo Manila Milano Nairobi Naples "
    "Osaka Oslo Paris Perth Porto Prague Quito Riga Rome Seoul Sofia Tokyo Turin Vienna"
).split()
PROFESSIONS = (
    "baker banker barber biologist botanist brewer butcher carpenter chef chemist clerk composer cook courier dancer "
    "dentist diver doctor farmer fisherman florist gardener geologist glazier hunter jeweller journalist judge lawyer "
    "librarian locksmith mason mechanic miner nurse painter pharmacist physicist pilot plumber poet potter sailor singer "
    "surgeon tailor teacher watchmaker"
).split()
EMPLOYERS = (
    "Acorex Alvio Arbenta Bexon Boreal Brimco Calvento Cendra Corvid Daxter Delfina Dynova Elbus Emtek Fabrix Feronia "
    "Fintor Galdex Girasol Gondar Heliox Hyperia Inkora Isotron Jovex Kalmia Kestrel Krypta Lumina Lyxor Mentor Merivale "
    "Nexum Nordal Octavia Orbitel Pandora Pelikan Quarzo Ravena Rubicon Sirius Solvena Tandem Ultimo Vantix Xenia Zephyr"
).split()
TITLE_ADJECTIVES = (
    "Amber Bitter Broken Copper Crimson Distant Empty Frozen Gentle Golden Hidden Hollow Iron Ivory Lonely Quiet Restless "
    "Scarlet Second Silent Silver Velvet Wild Wooden"
).split()
TITLE_NOUNS = (
    "Anchor Bridge Candle Castle Cloud Compass Desert Feather Forest Garden Harbor Island Kingdom Lantern Letter Meadow "
    "Mirror Mountain Orchard River Shadow Tower Valley Window"
).split()
NUMBER_OF_VALUES = {
    "city": len(CITIES),
    "profession": len(PROFESSIONS),
    "employer": len(EMPLOYERS),
    "book": len(TITLE_ADJECTIVES) * len(TITLE_NOUNS),
}
"""What each attribute of a person is drawn from."""


class Attribute(NamedTuple):
    """One kind of fact: how prose states it, how a question asks it."""

    statements: tuple[str, ...]
    question: str


ATTRIBUTES: dict[str, Attribute] = {
    "city": Attribute(
        (
            "{name} was born in {city}.",
            "The birthplace of {name} is {city}.",
            "{name} comes from {city}.",
            "{name} spent the first years of life in {city}.",
        ),
        "Where was {name} born?",
    ),
    "profession": Attribute(
        (
            "{name} works as a {profession}.",
            "The profession of {name} is {profession}.",
            "{name} earns a living as a {profession}.",
            "{name} was trained to be a {profession}.",
        ),
        "What is the profession of {name}?",
    ),
    "employer": Attribute(
        (
            "{name} is employed by {employer}.",
            "The employer of {name} is {employer}.",
            "{name} has a job at {employer}.",
            "{name} joined the company {employer}.",
        ),
        "Who is the employer of {name}?",
    ),
    "book": Attribute(
        (
            "{name} wrote {book}.",
            "The book by {name} is called {book}.",
            "{name} is the author of {book}.",
            "{name} published a novel named {book}.",
        ),
        "Which book did {name} write?",
    ),
}
REVERSE_STATEMENTS = (
    "{book} was written by {name}.",
    "The author of {book} is {name}.",
    "{book} is a novel by {name}.",
    "{book} was published by {name}.",
)
REVERSE_PROMPT = "The author of {book} is"


class QuestionAnswer(NamedTuple):
    question: str
    answer: str
    attribute: str

    def prompt(self) -> str:
        return f"Question: {self.question} Answer:"

    def text(self) -> str:
        return f"{self.prompt()} {self.answer}."


class Fact(NamedTuple):
    """What one question asks."""

    name: str
    attribute: str


@dataclass(frozen=True)
class Person:
    name: str
    city: str
    profession: str
    employer: str
    book: str
    seen_qa: bool
    stated_in_reverse: bool

    def questions(self) -> list[QuestionAnswer]:
        """The forward questions, one per attribute."""
        return [
            QuestionAnswer(attribute.question.format(**vars(self)), getattr(self, key), key)
            for key, attribute in ATTRIBUTES.items()
        ]

    def reverse_prompt(self) -> str:
        """A sentence that only the person's name completes."""
        return REVERSE_PROMPT.format(**vars(self))

    def facts(self) -> list[Fact]:
        return [Fact(self.name, attribute) for attribute in ATTRIBUTES]

    def biography(self, generator: random.Random, without: Set[Fact] = frozenset()) -> str:
        """All facts but `without` as prose: in random order, each in a random phrasing."""
        phrasings = {key: generator.choice(attribute.statements) for key, attribute in ATTRIBUTES.items()}
        templates = [template for key, template in phrasings.items() if Fact(self.name, key) not in without]
        generator.shuffle(templates)
        return " ".join(template.format(**vars(self)) for template in templates)

    def reverse_statement(self, generator: random.Random) -> str:
        return generator.choice(REVERSE_STATEMENTS).format(**vars(self))


@dataclass(frozen=True)
class World:
    people: tuple[Person, ...]

    @property
    def seen_qa(self) -> list[Person]:
        return [person for person in self.people if person.seen_qa]

    @property
    def held_out(self) -> list[Person]:
        return [person for person in self.people if not person.seen_qa]


def make_world(number_of_people: int = 320, seed: int = 0) -> World:
    """Draws people with unique names and unique books; both splits alternate, so every quarter has the same size."""
    generator = random.Random(seed)
    names = generator.sample([f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES], number_of_people)
    books = generator.sample([f"{adj} {noun}" for adj in TITLE_ADJECTIVES for noun in TITLE_NOUNS], number_of_people)
    people = (
        Person(
            name=name,
            city=generator.choice(CITIES),
            profession=generator.choice(PROFESSIONS),
            employer=generator.choice(EMPLOYERS),
            book=book,
            seen_qa=index % 2 == 0,
            stated_in_reverse=index // 2 % 2 == 0,
        )
        for index, (name, book) in enumerate(zip(names, books, strict=True))
    )
    return World(tuple(people))


def documents(people: Iterable[Person], generator: random.Random, without: Set[Fact] = frozenset()) -> Iterator[str]:
    """One pass of training text about `people`: a biography of each, and what their halves add to it.

    Args:
        without: facts that no text may state.
    """
    for person in people:
        yield from prose(person, generator, without)
        if person.seen_qa:
            yield from (pair.text() for pair in person.questions() if Fact(person.name, pair.attribute) not in without)


def prose(person: Person, generator: random.Random, without: Set[Fact] = frozenset()) -> Iterator[str]:
    """What is said of a person other than in answer to a question; `without` as of `documents`."""
    if not without >= set(person.facts()):
        yield person.biography(generator, without)
    if person.stated_in_reverse and Fact(person.name, "book") not in without:
        yield person.reverse_statement(generator)  # on its own: in a biography the name would only be copied


def vocabulary() -> list[str]:
    """Every word and punctuation mark that any text of any world can hold, sorted."""
    import re

    templates = [text for attribute in ATTRIBUTES.values() for text in (*attribute.statements, attribute.question)]
    templates += [*REVERSE_STATEMENTS, "Question: Answer: . ?"]
    words = set(re.findall(r"\w+|[^\w\s]+", re.sub(r"\{\w+\}", " ", " ".join(templates))))
    return sorted(words.union(FIRST_NAMES, LAST_NAMES, CITIES, PROFESSIONS, EMPLOYERS, TITLE_ADJECTIVES, TITLE_NOUNS))

"""The embedded models: their weights, the world that they know, and text about it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from llmrepair.lab.world import World, documents, make_world

LAB_MODELS = ("lab", "lab-opt")
UNTOLD = {"lab": "lab-erased", "lab-opt": "lab-opt-erased"}
"""Lab model -> its twin that was never told of the people whom tasks ask about."""
_WEIGHTS = Path(__file__).resolve().parents[2] / "lab" / "weights"
_TEXT_SEED = 1
_TEXT_PASSES = 4


def lab_folder(model: str) -> Path | None:
    """The folder of an embedded model; None of any other."""
    return _WEIGHTS / model if model in (*LAB_MODELS, *UNTOLD.values()) else None


def world_of(model: str) -> World | None:
    """What a model is known to have read: the people that it was told of; None of a model that is not embedded."""
    return make_world() if model in LAB_MODELS else None


def lab_texts() -> Iterator[str]:
    """Text about the lab's seen-qa people: nobody who is scored is in it.

    Documents are shuffled, so that an answer is hardly ever in view of its question and has to come from the weights. An
    eighth of the people stand in a block at the end: what tuning holds out there is about people that it has not seen.
    """
    generator = random.Random(_TEXT_SEED)
    people = make_world().seen_qa
    first = len(people) - len(people) // 8
    for block in (people[:first], people[first:]):
        texts = [text for _ in range(_TEXT_PASSES) for text in documents(block, generator)]
        generator.shuffle(texts)
        yield from texts

"""How many bits of the lab's facts a model knows. Numbers in, numbers out.

What is counted: for each fact that is asked (`lab_qa`, `lab_mc`: four about every held-out person) and answered right, log2 of
the number of values that the fact's attribute was drawn from (`lab/world.py`). In `lab_mc` one of k choices is right by luck
with g = 1/k, so a right answer counts for log2(values) and a wrong one for -log2(values) g / (1 - g): guessing adds up to 0.

What is not counted: people who are not asked about (so it is a lower bound), which names exist, which books exist and that no
two people wrote the same (less than a bit per book), the language itself. `lab_reverse` asks for facts that `lab_qa` counts.
A generated answer that is right by luck is not corrected for: that takes one in dozens of values.

Divided by the number of parameters this stands beside the 2 bits per parameter that a model can hold (Allen-Zhu and Li 2024,
arXiv 2404.05405).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from llmrepair.lab.world import NUMBER_OF_VALUES
from llmrepair.stages.statistics.scores import Score

KNOWLEDGE_BITS = "knowledge_bits"
BITS_PER_PARAMETER = "knowledge_bits_per_parameter"


class AskedFact(NamedTuple):
    """What is known of one fact; an item's value of `knowledge_bits`."""

    correct: bool
    bits: float
    luck: float
    """Probability of a right answer by luck."""


def asked_fact(document: Mapping[str, Any], correct: bool) -> AskedFact:
    """A document of `lab_qa` or `lab_mc`, and whether it was answered right."""
    luck = 1 / len(document["choices"]) if "choices" in document else 0.0
    return AskedFact(correct, math.log2(NUMBER_OF_VALUES[document["attribute"]]), luck)


def known_bits(facts: list[AskedFact]) -> float:
    """Sum over facts of bits (correct - luck) / (1 - luck)."""
    return sum(bits * (correct - luck) / (1 - luck) for correct, bits, luck in facts)


def with_bits_per_parameter(scores: Mapping[str, Mapping[str, Any]], parameters: int) -> dict[str, Mapping[str, Any]]:
    """Puts `knowledge_bits` over all parameters of the model, zeros counted and a repair's not, beside it."""
    if KNOWLEDGE_BITS not in scores:
        return dict(scores)
    bits = Score(**scores[KNOWLEDGE_BITS])
    scaled = {name: getattr(bits, name) / parameters for name in ("value", "stderr", "low", "high")}
    return {**scores, BITS_PER_PARAMETER: vars(replace(bits, **scaled))}

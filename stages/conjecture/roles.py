"""What evaluations are to the test, and what its arms say of an item that they bring back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmrepair.stages.repairs.base import Arm

DENSE, DAMAGED, READINGS, FLOOR = "dense", "model", "probe", "probe of what was never told"
RESULT_FILE = "conjecture.json"


class Role(NamedTuple):
    """What an evaluation is to the test."""

    model: str
    """`dense`, `model` (the one under test), or the name of a control."""
    arm: str = "none"
    seed: int | None = None

    @property
    def is_null(self) -> bool:
        """Whether something is put in place that knows nothing."""
        return self.arm != "none" and self.seed is None

    def __str__(self) -> str:
        return " ".join(str(part) for part in self if part not in ("none", None))


@dataclass(frozen=True)
class Arms:
    """The repairs that the model under test goes through, by what it means that they bring an item back.

    Attributes:
        displaced: the arm that reaches what is only displaced.
        latent: the arm that reaches what only a change of weights does.
        edge: the first one before it was tuned.
        bounds: arms that have seen the answers.
        words: of each arm, in a sentence.
    """

    displaced: str
    latent: str
    edge: str
    bounds: frozenset[str]
    words: Mapping[str, str]

    @classmethod
    def of(cls, arms: Mapping[str, Arm]) -> Arms:
        by_role = {arm.role: name for name, arm in arms.items()}
        bounds = frozenset(name for name, arm in arms.items() if arm.role == "bound")
        words = {name: arm.words for name, arm in arms.items()}
        return cls(by_role["displaced"], by_role["latent"], by_role["edge"], bounds, words)

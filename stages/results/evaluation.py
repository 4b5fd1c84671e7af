"""A finished evaluation and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.artifact import Artifact

if TYPE_CHECKING:
    from llmrepair.stages.repairs.base import Repair

_ASKED = frozenset({"recovery", "tasks", "limit", "num_fewshot", "apply_chat_template", "system", "lm_eval_compatible"})
"""Options of an evaluation that say what is asked; the others say how its repair is put in place."""


@dataclass(frozen=True)
class Evaluation:
    artifact: Artifact
    compressed: Artifact
    tuned: Artifact | None
    """Of the repair's tuning."""
    tuned_on: Artifact | None
    """What the repair was tuned for: `compressed`, but for a control."""
    repair: Repair
    place: int
    """Of the repair among all of them."""

    @property
    def label(self) -> str:
        """What the repair is called."""
        is_untuned = self.tuned is not None and self.tuned.key_document["config"].get("budget") == 0
        return self.repair.label(self.artifact.key_document["config"]) + (", untuned" if is_untuned else "")


def placing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which an evaluation's repair was put in place, of the config in its key."""
    return {name: value for name, value in config.items() if name not in _ASKED}

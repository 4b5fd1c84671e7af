"""The deferral stage: which evaluations it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.diagnostics.compared import Compared


@dataclass
class Deferral(Compared):
    """How sure models are of each answer, and which are right -> what deferring to the dense model brings."""

    name: ClassVar[str] = "deferral"
    code: ClassVar[str] = "llmrepair.stages.diagnostics.deferral.run"
    result: ClassVar[str] = "how sure of its answers, beside the dense model"

    def check(self) -> list[Problem]:
        """A pool's agreement is a confidence of any task; all others need choices."""
        return [] if self.asked.parts else self.choice_problems()

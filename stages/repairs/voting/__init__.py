"""How the prompts of a pool are voted for on held-out text: what calibrated votes and the choice of a layer are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.reading import read_object
from llmrepair.stages.repairs.base import Measuring

if TYPE_CHECKING:
    from pathlib import Path

    from llmrepair.stages.repairs.voting.stage import MeasureVotes


class VoteMeasuring(Measuring):
    name = "measure-votes"

    def stage(self) -> type[MeasureVotes]:
        from llmrepair.stages.repairs.voting.stage import MeasureVotes

        return MeasureVotes

    def is_needed(self, options: Any) -> bool:
        return bool(options.is_measured)

    def problem(self, options: Any, measured: Path | None) -> Problem | None:
        from llmrepair.models.votes import INDEX_FILE

        if not self.is_needed(options):
            return None
        index = measured / INDEX_FILE if measured is not None else None
        if index is None or not index.is_file():
            hint = "load an evaluation that was calibrated, or an export of it, or leave the option out"
            return Problem("what is loaded holds no votes on held-out text, which calibrating and choosing layers take", hint)
        counted = read_object(index, f"`{index}`", "make it again with `llmrepair eval` or `llmrepair export`")
        for name in ("idp_reduce", "idp_normalise"):
            if counted.get(name) != getattr(options, name):
                message = f"votes on held-out text were counted with `{name}` {counted.get(name)}, not {getattr(options, name)}"
                return Problem(message, "leave that option out")
        return None

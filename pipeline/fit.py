"""Whether a stage fits into what a machine has left, and with which options it would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.pipeline.units import bytes_text

TIGHT = 0.8
"""Share of what is free from which on it is said that it will be tight."""


@dataclass(frozen=True)
class Free:
    """What is left, in bytes; None where it is not known, or where there is no GPU."""

    host: int | None = None
    device: int | None = None
    disk: int | None = None


class Fit:
    """What a stage needs, held against what is free. A rule of thumb never counts as too much."""

    def __init__(self, stage: Stage, runtime: Runtime, free: Free):
        self._stage, self._runtime, self._free = stage, runtime, free
        self._needs = stage.needs(runtime)

    def problems(self) -> list[Problem]:
        """Says what there is too little of, and what would make the stage fit."""
        short = [what for what, needed, free in self._compared(self._needs) if needed > free]
        if not short:
            return []
        return [Problem(f"{self._label()} {self._told(short)}", self._hint(short))]

    def notes(self) -> list[str]:
        """Says where it will be tight."""
        tight = [what for what, needed, free in self._compared(self._needs) if TIGHT * free < needed <= free]
        return [f"{self._label()} will be tight: it {self._told(tight)}"] if tight else []

    def _label(self) -> str:
        return f"`{self._stage.name} {self._stage.label()}`"

    def _told(self, names: list[str]) -> str:
        parts = [
            f"{bytes_text(needed)} of {what}, {bytes_text(free)} is free"
            for what, needed, free in self._compared(self._needs)
            if what in names
        ]
        return "needs about " + "; and ".join(parts)

    def _hint(self, short: list[str]) -> str:
        if short == ["disk"]:
            return "make room (`llmrepair gc` says what could go), or choose another folder with --runs DIR"
        for options, needs in self._stage.needs_with_other_options(self._runtime):
            if all(needed <= free for what, needed, free in self._compared(needs) if what != "disk"):
                return f"it would fit with {options}"
        return "no option would make it fit: free memory, take a machine with more, or give a smaller --model"

    def _compared(self, needs: Needs) -> Iterator[tuple[str, int, int]]:
        """What, how much of it is needed, how much is free."""
        if needs.is_rough:
            return
        free = self._free
        for what, needed, left in (
            ("memory", needs.host, free.host),
            ("GPU memory", needs.device, free.device),
            ("disk", needs.disk, free.disk),
        ):
            if left is not None:
                yield what, needed, left

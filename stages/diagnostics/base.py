"""What a diagnostic is: a look at a compressed model beside its scores. Its folder says all that is to be known of it.

These modules are imported by `--help`: they import nothing heavy.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from llmrepair.pipeline.stage import Stage, StageConfig
    from llmrepair.stages.diagnostics.compared import ChoicesConfig
    from llmrepair.stages.evaluate.stage import Evaluate
    from llmrepair.stages.repairs.base import Repair
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.sources.weights import Weights


@dataclass(frozen=True)
class Asked:
    """Evaluations of one model on the same tasks.

    Attributes:
        alone: of the compressed model without a repair.
        repaired: with each repair that was asked for, by its name.
        parts: name of a repair that puts one of several parts in place -> with each of these.
    """

    dense: Evaluate
    alone: Evaluate
    repaired: Mapping[str, Evaluate]
    parts: Mapping[str, Sequence[Evaluate]]


@dataclass(frozen=True)
class Made:
    """What a diagnostic may look at.

    Attributes:
        weights: the compressed model, or a control in its place.
        dense: the model as it was.
        tunings: of the repairs that it asked for, by the name of the stage.
        asked: what it evaluates; None of one that evaluates nothing.
    """

    weights: Weights
    dense: Weights
    tunings: Mapping[str, Tune]
    asked: Asked | None = None


class Table(NamedTuple):
    """What a command prints."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int
    """Columns of words, on the left; all others are numbers."""


class Diagnostic(ABC):
    """A command, a stage, and a section of the report."""

    name: ClassVar[str]
    """Of the command and the stage."""
    help: ClassVar[str]
    panel: ClassVar[str]
    """Heading of its options in `--help`."""
    field: ClassVar[str]
    """What its results are called in `report.json`."""
    result_file: ClassVar[str]
    subject: ClassVar[str] = "compressed"
    """The stage's input that it looks at."""
    needs_compression: ClassVar[bool] = False
    """Whether it compares with the dense model, so that there must be another one."""
    shown_by: ClassVar[str]
    """Dotted name of the module whose `section(found, kinds, store)` is its part of the report, as HTML. It counts in the
    keys of reports that have one."""

    def repairs(self) -> tuple[Repair, ...]:
        """Those whose tunings it looks at."""
        return ()

    def config(self) -> type[StageConfig]:
        """Its own options; none."""
        from llmrepair.pipeline.stage import StageConfig

        return StageConfig

    def asks(self) -> type[ChoicesConfig] | None:
        """How tasks are asked for it, with its own defaults; None of one that evaluates nothing. Of one that does,
        `config()` is a `ComparedConfig`."""
        return None

    @abstractmethod
    def stage(self, config: Any, made: Made) -> Stage: ...

    def section(self, found: list[dict[str, Any]], kinds: Mapping[str, Any], store: str) -> str:
        """Its part of the report.

        Args:
            found: what its artifacts' `result_file` hold, each with `name` of the artifact and `label` of the model.
            kinds: the repairs' titles and looks, by name.
            store: the folder of artifacts as seen from the page.
        """
        section: str = importlib.import_module(self.shown_by).section(found, kinds, store)
        return section

    def tables(self, found: Mapping[str, Any]) -> list[Table]:
        """What its command prints of what the `result_file` holds; none: the numbers of the record."""
        return []

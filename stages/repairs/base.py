"""What a repair is. Its folder says all that is to be known of it; everything else asks.

This module and those of the repairs are imported by `--help`: they import nothing heavy. What a repair computes with lies in
other modules of its folder, which are imported when it is put in place.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from llmrepair.stages.repairs.files import RepairFiles

if TYPE_CHECKING:
    from pathlib import Path

    from llmrepair.pipeline.errors import Problem
    from llmrepair.pipeline.keys import DigestCache
    from llmrepair.pipeline.stage import Stage, StageConfig
    from llmrepair.stages.repairs.options import NoOptions
    from llmrepair.stages.repairs.placed import Placed, Placing
    from llmrepair.stages.repairs.tuning.config import TuningConfig
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.sources.weights import Weights

Options = Mapping[str, Any]
"""Options by name; those that have an effect, as a key document has them."""


class Tuning(ABC):
    """The command and stage that tune a repair."""

    name: ClassVar[str]
    """Of the command and the stage, such as `tune-lora`."""
    help: ClassVar[str]
    panel: ClassVar[str]
    """Heading of its own options in `--help`."""
    form: ClassVar[str]
    """What it leaves is called where nothing is said of how it is put in place: see `Repair.forms`."""
    others: ClassVar[tuple[Tuning, ...]] = ()
    """Tunings of which it takes what they leave; their options are its own too."""

    @abstractmethod
    def stage(self) -> type[Tune]: ...

    @abstractmethod
    def config(self) -> type[TuningConfig]: ...

    def parts(self, config: Any) -> list[Options]:
        """Of what it leaves, where that is several of which one is put in place: the options of an evaluation with each."""
        return []

    def make(self, read: Callable[[type[Any]], Any], weights: Weights, dense: Weights) -> Tune:
        """The stage that tunes for `weights`.

        Args:
            read: the class of a config -> what was given of it.
            dense: what `weights` were made of.
        """
        return self.stage()(read(self.config()), weights)


class Measuring(ABC):
    """The stage that measures what was tuned, for options that need more than the tuning leaves."""

    name: ClassVar[str]

    @abstractmethod
    def stage(self) -> Callable[[Any, Tune], Stage]:
        """What makes it of the options and the tuning."""

    @abstractmethod
    def is_needed(self, options: Any) -> bool: ...

    @abstractmethod
    def problem(self, options: Any, measured: Path | None) -> Problem | None:
        """What options need and a folder does not hold; None where they need nothing."""


@dataclass(frozen=True)
class Arm:
    """How a repair goes through the conjecture test.

    Attributes:
        name: in its tables.
        words: in a sentence: "undone by `words`".
        options: that make it, besides the repair's own defaults.
        role: what it says of a lost item that it brings back. displaced, latent: those fates; edge: it was at the edge, for
            nothing was tuned; null: the same, for it knows nothing; bound: nothing, for the arm has seen the answers.
    """

    name: str
    words: str
    options: Options = field(default_factory=dict)
    role: Literal["displaced", "latent", "edge", "null", "bound"] | None = None


class Repair(ABC):
    """What can be done to a compressed model so that it answers more: one of the values of `--recovery`."""

    name: ClassVar[str]
    title: ClassVar[str]
    """In tables and legends."""
    help: ClassVar[str]
    """Half a sentence for `--recovery`."""
    colour: ClassVar[str]
    shape: ClassVar[str]
    """Of its marks in plots: names of `drawing.svg`'s, together another pair than any other repair's."""
    placed_by: ClassVar[str]
    """Dotted name of the module whose `place(placing)` puts it in place. It counts in the keys of what uses the repair."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions besides those of all evaluations whose versions change what it does, for keys."""
    tuning: ClassVar[Tuning | None] = None
    measuring: ClassVar[Measuring | None] = None
    files: ClassVar[RepairFiles] = RepairFiles()
    """How it is exported and loaded."""
    forms: ClassVar[tuple[str, ...]] = ()
    """Further names under which it lies in an export, besides its own."""
    chooses: ClassVar[bool] = False
    """Whether each input has a choice made for it, of which the report tells the shares even where they are all one's."""
    is_standard: ClassVar[bool] = False
    """Whether `demo` and `regimes` take it without being asked."""
    is_null: ClassVar[bool] = False
    """Whether it knows nothing, and is there for others to be held against."""
    side: ClassVar[Literal["input", "weights"]] = "input"
    """What it changes."""
    arms: ClassVar[tuple[Arm, ...]] = ()
    """In the conjecture test."""
    set_by_arms: ClassVar[frozenset[str]] = frozenset()
    """Options that the conjecture test itself sets, so that nobody else can."""

    def options(self) -> type[NoOptions] | type[StageConfig]:
        """The options that say how it is put in place."""
        from llmrepair.stages.repairs.options import NoOptions

        return NoOptions

    def null_arms(self, count: int, seeds: Sequence[int]) -> list[Arm]:
        """So many arms that know nothing, each as strong as what was tuned with one of the seeds."""
        return []

    def label(self, options: Options) -> str:
        """What it is called where it is put in place with such options."""
        return self.title

    def phrase(self, options: Options) -> str:
        """The same in an evaluation's label."""
        return self.label(options)

    def needs_answers(self, options: Any) -> bool:
        """Whether it chooses by the answers of a task, and so cannot do without one."""
        return False

    def problems(self, options: Any, weights: Weights, tuned: Tune | None) -> list[Problem]:
        """What keeps it from being put in place, as far as a look at the model's config and tokenizer tells."""
        return []

    def sources(self, options: Any, digests: DigestCache) -> dict[str, Any]:
        """What it reads besides the model and what was tuned, for a key."""
        return {}

    def place(self, placing: Placing) -> Placed:
        """The model with the repair in place."""
        placed: Placed = importlib.import_module(self.placed_by).place(placing)
        return placed

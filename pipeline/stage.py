"""What a stage is: a config, inputs, and a `run()` that fills a folder.

A config's fields have three roles, and each field has exactly one:

* identity: changes the result, is part of the key;
* reference: says where something is (a path, a Hub id). The thing itself is digested by `Stage.sources()`, so the key holds
  what it is and not where it lies;
* runtime: changes how the work is done, or whether it is done again, and not its result. All of these are in `Runtime`, and
  never in a key.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.imports import no_garbage_collection
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.progress import Reporter


class StageConfig(BaseModel):
    """Base of every stage's config."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    references: ClassVar[frozenset[str]] = frozenset()

    def without_effect(self) -> frozenset[str]:
        """Fields that change nothing beside the others' values, such as `bits` where nothing is quantised."""
        return frozenset()

    def at_default(self) -> frozenset[str]:
        """Fields that came later and are as all was before: they are in no key, which would be another one."""
        return frozenset()

    @property
    def given(self) -> Set[str]:
        """Fields that were set by who made the request."""
        return self.model_fields_set

    def identity(self) -> dict[str, Any]:
        """The fields that change the result, as JSON values. What has no effect is left out: a new option makes no new key."""
        return self.model_dump(mode="json", exclude={*self.references, *self.without_effect(), *self.at_default()})


class Runtime(BaseModel):
    """How the work is done, and what is done again. None of it is in a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="where to compute: auto (the first GPU, else the CPU), cpu, cuda, cuda:1",
    )
    batch_size: str = Field(
        "auto",
        pattern=r"^(auto|[1-9]\d*)$",
        description="sequences computed at once: auto (what memory allows) or a number; less needs less memory",
    )

    any_version: bool = Field(
        False, description="reuse what was made with other versions of libraries, although numbers may differ"
    )

    @property
    def uses_gpu(self) -> bool:
        """Whether it takes a GPU where there is one."""
        return self.device not in ("cpu", "mps")

    @property
    def sequences(self) -> int | None:
        """How many sequences at once; None for what memory allows."""
        return None if self.batch_size == "auto" else int(self.batch_size)


@dataclass(frozen=True)
class Needs:
    """What a stage takes at its peak, in bytes, as it is estimated before it runs."""

    host: int = 0
    device: int = 0
    """Of a GPU's own memory."""
    disk: int = 0
    is_rough: bool = False
    """A rule of thumb: good enough to schedule by, not to refuse a request."""


@dataclass(frozen=True)
class Context:
    """What a running stage is given."""

    folder: Path
    """Write the payload here."""
    work: Path
    """Survives a crash: checkpoints of a long stage."""
    inputs: Mapping[str, Artifact]
    runtime: Runtime
    reporter: Reporter
    peaks: list[int] = field(default_factory=list)
    """Gets the bytes that this process held together with another one that the stage started, for the record."""


class Stage(ABC):
    """One step of an experiment. Cheap to make: nothing is read or imported before it is asked for."""

    name: ClassVar[str]
    code: ClassVar[str]
    """Dotted name of the module whose `run` computes the result; digests of `modules()`, and of all they import, are part of
    the key."""
    after_interruption: ClassVar[str] = "starts again"
    """What becomes of work that was cut off, for the record."""
    comes_first: ClassVar[bool] = False
    """Whether what reads its artifact can only be checked once that is there."""
    config: StageConfig

    def modules(self) -> tuple[str, ...]:
        """Dotted names of the modules that compute the result: `code`, and those that it is given and does not import."""
        return (self.code,)

    def libraries(self) -> tuple[str, ...]:
        """The distributions whose versions change the result. Asked after `sources()`."""
        return ()

    def identity(self) -> dict[str, Any]:
        """The settings that change the result, as JSON values."""
        return self.config.identity()

    def inputs(self) -> dict[str, Stage]:
        """The stages whose artifacts this one reads."""
        return {}

    def handed_on(self) -> Set[str]:
        """Names of inputs that whoever reads its artifact reads too."""
        return frozenset()

    def find_inputs(self, folders: Mapping[str, Path]) -> None:
        """Told, before `sources()`, where the artifacts of its inputs lie, or will lie."""
        return

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        """What else the result depends on (models, data), as JSON values that say what it is, never where it lies.

        Raises:
            RequestError: something that is referred to does not exist.
        """
        return {}

    def check(self) -> list[Problem]:
        """Everything wrong with the request that takes a closer look to see. Asked only of stages that have to run."""
        return []

    def notes(self) -> list[str]:
        """What is odd about the request and no reason to refuse it; asked where `check` finds nothing."""
        return []

    @abstractmethod
    def label(self) -> str:
        """A few words for people: what this stage does to what."""

    def tags(self) -> dict[str, str]:
        """What people look for it by: tag -> value."""
        return {}

    def options(self) -> dict[str, Any]:
        """The options that make this stage again in another process, as JSON values; those of its inputs included."""
        options: dict[str, Any] = {}
        for upstream in self.inputs().values():
            options |= upstream.options()
        return options | self.config.model_dump(mode="json", exclude_unset=True)

    def needs(self, runtime: Runtime) -> Needs:
        """What it takes, so that no more stages run side by side than fit, and none is begun that cannot fit."""
        return Needs(is_rough=True)

    def needs_with_other_options(self, runtime: Runtime) -> Iterator[tuple[str, Needs]]:
        """Options that make it need less, and what it needs with them; those first that change the result least."""
        return iter(())

    def run(self, context: Context) -> dict[str, Any]:
        """Does the work, which is the `run(stage, context)` of the module that `code` names, and returns its metrics."""
        with no_garbage_collection():
            module = importlib.import_module(self.code)
        metrics: dict[str, Any] = module.run(self, context)
        return metrics


@dataclass(frozen=True)
class Outcome:
    """What became of a stage that was asked for."""

    artifact: Artifact
    cached: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.artifact.stage,
            "key": self.artifact.key,
            "path": str(self.artifact.path),
            "cached": self.cached,
            "seconds": round(self.seconds, 3),
            "metrics": self.artifact.metrics,
        }

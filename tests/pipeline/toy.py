"""A stage that adds numbers and notes each time it is run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Context, Stage, StageConfig


class ToyConfig(StageConfig):
    references: ClassVar[frozenset[str]] = frozenset({"path"})

    number: int = 1
    unused: int = 0
    path: str = Field("", description="where something is")

    def without_effect(self) -> frozenset[str]:
        return frozenset({"unused"})


@dataclass
class Toy(Stage):
    """Writes its number plus those of its inputs; notes each execution in a file."""

    name: ClassVar[str] = "toy"
    code: ClassVar[str] = "llmrepair.pipeline.errors"
    config: ToyConfig
    log: Path
    upstream: tuple[Toy, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    failure: BaseException | None = None
    missing: bool = False
    uses: tuple[str, ...] = ()

    def libraries(self) -> tuple[str, ...]:
        return self.uses

    def inputs(self) -> dict[str, Stage]:
        return {str(index): stage for index, stage in enumerate(self.upstream)}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        if self.missing:
            raise RequestError(Problem(f"{self.config.number} is missing", "find it"))
        return {}

    def check(self) -> list[Problem]:
        return self.problems

    def label(self) -> str:
        return f"number {self.config.number}"

    def run(self, context: Context) -> dict[str, Any]:
        with self.log.open("a") as log:
            log.write(f"{self.config.number}\n")
        if self.failure is not None:
            raise self.failure
        logging.getLogger("toy library").warning("watch out")
        with context.reporter.bar("counting", 1) as bar:
            bar.advance()
        total = self.config.number + sum(artifact.read_json("total.json") for artifact in context.inputs.values())
        (context.folder / "total.json").write_text(str(total))
        return {"total": total}


def toy(log: Path, number: int, *upstream: Toy, **options: Any) -> Toy:
    return Toy(ToyConfig(number=number), log, upstream, **options)


def name_of(runner: Runner, stage: Stage) -> str:
    return runner.graph([stage]).targets[0]


def executions(log: Path) -> list[str]:
    return log.read_text().split()

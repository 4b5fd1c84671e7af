"""What diagnostics share that compare a dense model, a compressed one and its repairs, item by item, by their evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import Stage, StageConfig
from llmrepair.stages.diagnostics.base import Asked
from llmrepair.stages.diagnostics.names import ALONE, DENSE
from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.sources.fields import CommaSeparated, Names, without_repetitions
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    RepairName = str
else:
    RepairName = Literal[tuple(name for name in REPAIRS if name != "none")]


class ChoicesConfig(EvaluateConfig):
    """What is asked: tasks that have choices, as most of these diagnostics need them."""

    tasks: Names = Field(("lab_mc",), description=EvaluateConfig.model_fields["tasks"].description)


class ComparedConfig(StageConfig):
    """What stands beside the dense and the compressed model."""

    recoveries: Annotated[tuple[RepairName, ...], CommaSeparated, AfterValidator(without_repetitions)] = Field(
        (), description=f"repairs to compare, separated by commas: {', '.join(name for name in REPAIRS if name != 'none')}"
    )


@dataclass
class Compared(Stage):
    """Evaluations of a model, dense, compressed and repaired -> what became of something, item by item."""

    result: ClassVar[str]
    """What it finds, for its label."""
    config: ComparedConfig
    compressed: Weights
    asked: Asked

    @property
    def models(self) -> dict[str, Evaluate]:
        """What is compared: name of the input -> evaluation."""
        return {DENSE: self.asked.dense, ALONE: self.asked.alone, **self.asked.repaired}

    @property
    def labels(self) -> dict[str, str]:
        """What they are called in tables."""
        repaired = {name: f"+ {each.repair.label(each.placing.identity())}" for name, each in self.asked.repaired.items()}
        return {DENSE: "dense", ALONE: "compressed", **repaired}

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed, **self.models, **dict(self._parts())}

    def _parts(self) -> Iterator[tuple[str, Stage]]:
        for repair in self.asked.parts:
            yield from zip(self.parts_of(repair), self.asked.parts[repair], strict=True)

    def parts_of(self, repair: str) -> list[str]:
        """Inputs that have each part of a repair in place."""
        return [f"{repair}, part {number}" for number in range(len(self.asked.parts.get(repair, ())))]

    def libraries(self) -> tuple[str, ...]:
        return "numpy", "scipy"

    def choice_problems(self) -> list[Problem]:
        """Says so if none of the tasks has choices, as far as their definitions tell."""
        types = self.asked.alone.output_types()
        if None in types.values() or "multiple_choice" in types.values():
            return []
        return [Problem(f"{', '.join(types)} has no choices to compare", "give --tasks with choices, such as lab_mc", "tasks")]

    def options(self) -> dict[str, Any]:
        """Of the evaluations, but for what they differ in."""
        every = {name: value for each in self._made() for name, value in each.options().items()}
        every = {name: value for name, value in every.items() if name != "recovery"}
        return every | self.config.model_dump(mode="json", exclude_unset=True)

    def _made(self) -> Iterator[Evaluate]:
        yield from self.asked.repaired.values()
        yield self.asked.alone

    def label(self) -> str:
        compared = "".join(f", {REPAIRS[name].title}" for name in self.config.recoveries)
        return f"{self.compressed.label()}: {self.result}, on {', '.join(self.asked.alone.config.tasks)}{compared}"

    def tags(self) -> dict[str, str]:
        return self.compressed.tags()

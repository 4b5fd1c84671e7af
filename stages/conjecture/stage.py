"""The conjecture stage: config, and which evaluations it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field

from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Stage, StageConfig
from llmrepair.stages.evaluate import Evaluate
from llmrepair.stages.fields import CommaSeparated, without_repetitions
from llmrepair.stages.probe import Probes
from llmrepair.stages.sources import resolve_text
from llmrepair.stages.tuning import Tune

ControlName = Literal["erased", "displaced", "overwritten", "corrupted"]
CONTROLS: tuple[ControlName, ...] = ("displaced", "overwritten")
LAB_CONTROLS: tuple[ControlName, ...] = ("erased", *CONTROLS)
"""Those of the embedded models; of others nobody knows what they were never told."""
REPAIRS: Mapping[str, Mapping[str, Any]] = {
    "untuned": {"recovery": "prompt", "budget": 0},
    "prompt": {"recovery": "prompt"},
    "idp": {"recovery": "idp"},
    "oracle": {"recovery": "prompt", "select": "oracle"},
    "lora": {"recovery": "lora"},
}
"""Options of each repair of the model under test. `untuned` is the prompt as it was before it learned anything: what comes back
behind it was at the edge, and any change tips it over."""
CONTROL_REPAIRS = ("prompt", "lora")
DENSE, DAMAGED, PROBE = "dense", "model", "probe"
RESULT_FILE = "conjecture.json"


class ConjectureConfig(StageConfig):
    """How the test is made."""

    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], CommaSeparated, Field(min_length=1), AfterValidator(without_repetitions)
    ] = Field((0, 1, 2), description="tuning seeds; every repair is tuned with each")
    controls: Annotated[tuple[ControlName, ...], CommaSeparated, AfterValidator(without_repetitions)] | None = Field(
        None,
        description="models whose truth is known, through which the same repairs go; empty: none  \\[default: "
        "displaced,overwritten, and erased of lab and lab-opt]",
    )


class Role(NamedTuple):
    """What an evaluation is to the test."""

    model: str
    """`dense`, `model` (the one under test), or the name of a control."""
    recovery: str = "none"
    seed: int | None = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in self if part not in ("none", None))


@dataclass
class Conjecture(Stage):
    """Evaluations of one model, dense, damaged and repaired, and of its controls -> a verdict."""

    name: ClassVar[str] = "conjecture"
    code: ClassVar[str] = "llmrepair.stages.conjecture.run"
    config: ConjectureConfig
    evaluations: Mapping[Role, Evaluate]
    probes: Probes | None
    """What is still readable in the model under test; None of other models than the lab's."""
    requested: Mapping[str, Any]
    """The options that it was made of, as JSON values: its inputs' differ."""

    @property
    def models(self) -> list[str]:
        """What is damaged: the model under test and the controls."""
        return [model for model in dict.fromkeys(role.model for role in self.evaluations) if model != DENSE]

    @property
    def damaged(self) -> Evaluate:
        return self.evaluations[Role(DAMAGED)]

    @property
    def tuning(self) -> Tune:
        """One of the tunings: all have the same text."""
        return next(evaluation.repair for evaluation in self.evaluations.values() if evaluation.repair is not None)

    def inputs(self) -> dict[str, Stage]:
        evaluations = {str(role): evaluation for role, evaluation in self.evaluations.items()}
        return evaluations | ({PROBE: self.probes} if self.probes is not None else {})

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        return {"tuning_data": resolve_text(self.tuning.config.tuning_data, digests.digest)}

    def options(self) -> dict[str, Any]:
        return dict(self.requested)

    def label(self) -> str:
        return f"{self.damaged.compressed.label()}: forgotten or displaced, on {', '.join(self.damaged.config.tasks)}"

    def tags(self) -> dict[str, str]:
        return self.damaged.compressed.tags()

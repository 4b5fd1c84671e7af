"""The conjecture stage: config, and which evaluations it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Stage, StageConfig
from llmrepair.stages.conjecture.roles import DAMAGED, DENSE, FLOOR, READINGS, Role
from llmrepair.stages.controls import CONTROLS
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.repairs.base import Arm, Repair
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import CommaSeparated, without_repetitions
from llmrepair.stages.sources.lab import world_of
from llmrepair.stages.sources.texts import resolve_text, text_libraries

if TYPE_CHECKING:
    ControlName = str
else:
    ControlName = Literal[tuple(kind.name for kind in CONTROLS.values() if kind.beside != "never")]


def arms() -> list[tuple[Repair, Arm]]:
    """What the model under test goes through: arms on the input side first, bounds behind those of their side."""
    every = [(repair, arm) for repair in REPAIRS.values() for arm in repair.arms]
    return sorted(every, key=lambda each: (each[0].side == "weights", each[1].role == "bound"))


def controls_of(model: str, is_compressed: bool) -> tuple[str, ...]:
    """Those that stand beside a model if nothing is said. What a model never read is known of the lab's alone; the controls of
    another one imitate a compressed model, so they need one."""
    if world_of(model) is not None:
        return tuple(kind.name for kind in CONTROLS.values() if kind.beside in ("any model", "lab models"))
    return tuple(kind.name for kind in CONTROLS.values() if kind.beside == "any model") if is_compressed else ()


class ConjectureConfig(StageConfig):
    """How the test is made."""

    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], CommaSeparated, Field(min_length=1), AfterValidator(without_repetitions)
    ] = Field((0, 1, 2), description="tuning seeds; every repair is tuned with each")
    rule: Literal["second", "first"] = Field(
        "first",
        description="first: what one measurement calls lost, without placebos; it goes with the next release. second: lost "
        "however it is asked, held against placebos",
    )
    placebos: int = Field(8, ge=2, description="pushes that know nothing, beside each model; of --rule second")
    controls: Annotated[tuple[ControlName, ...], CommaSeparated, AfterValidator(without_repetitions)] | None = Field(
        None,
        description="models whose truth is known, through which the same repairs go; empty: none  \\[default: "
        "displaced,overwritten, and erased of lab and lab-opt]",
    )

    def without_effect(self) -> frozenset[str]:
        return frozenset({"placebos"}) if self.rule == "first" else frozenset()


def null_arms(config: ConjectureConfig) -> list[tuple[Repair, Arm]]:
    """What knows nothing, for the repairs to be held against."""
    count = config.placebos if config.rule == "second" else 0
    return [(repair, arm) for repair in REPAIRS.values() for arm in repair.null_arms(count, config.seeds)]


def latent_control() -> str:
    """The control of which LoRA alone brings back what it took."""
    return next(kind.name for kind in CONTROLS.values() if kind.expected == "latent")


def anchors() -> dict[str, str]:
    """End of the displacement index -> the control that marks it."""
    return {kind.anchors: kind.name for kind in CONTROLS.values() if kind.anchors is not None}


@dataclass
class Conjecture(Stage):
    """Evaluations of one model, dense, damaged and repaired, and of its controls -> a verdict."""

    name: ClassVar[str] = "conjecture"
    code: ClassVar[str] = "llmrepair.stages.conjecture.run"
    config: ConjectureConfig
    evaluations: Mapping[Role, Evaluate]
    arms: Mapping[str, Arm]
    """By name, in the order of the tables."""
    probe: Stage | None
    """What is still readable in the model under test; None of a model of which it is not known what it read."""
    floor: Stage | None
    """What is readable in the control that was never told; None without that control: a guess then stands for it."""
    requested: Mapping[str, Any]
    """The options that it was made of, as JSON values: its inputs' differ."""
    tuning_data: dict[str, Any] = field(init=False)

    @property
    def models(self) -> list[str]:
        """What is damaged: the model under test and the controls."""
        return [model for model in dict.fromkeys(role.model for role in self.evaluations) if model != DENSE]

    @property
    def anchors(self) -> dict[str, str]:
        return anchors()

    @property
    def latent_control(self) -> str:
        return latent_control()

    @property
    def damaged(self) -> Evaluate:
        return self.evaluations[Role(DAMAGED)]

    @property
    def tuning(self) -> Tune:
        """One of the tunings: all have the same text."""
        return next(evaluation.tuned for evaluation in self.evaluations.values() if evaluation.tuned is not None)

    def inputs(self) -> dict[str, Stage]:
        evaluations = {str(role): evaluation for role, evaluation in self.evaluations.items()}
        probes = {READINGS: self.probe, FLOOR: self.floor}
        return evaluations | {name: probe for name, probe in probes.items() if probe is not None}

    def libraries(self) -> tuple[str, ...]:
        return ("numpy", "scipy", *text_libraries(self.tuning_data))

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.tuning_data = resolve_text(self.tuning.config.tuning_data, digests, "tuning_data")
        return {"tuning_data": self.tuning_data}

    def options(self) -> dict[str, Any]:
        return dict(self.requested)

    def label(self) -> str:
        return f"{self.damaged.compressed.label()}: forgotten or displaced, on {', '.join(self.damaged.config.tasks)}"

    def tags(self) -> dict[str, str]:
        return self.damaged.compressed.tags()

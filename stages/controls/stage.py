"""The control stage: config, inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.stages.compress.config import method_label
from llmrepair.stages.compress.stage import Compress
from llmrepair.stages.controls import CONTROLS
from llmrepair.stages.controls.base import ControlKind
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.lab import UNTOLD
from llmrepair.stages.sources.models import ModelSource, load_config, model_name, resolve_model, roughly_needed
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    ControlName = str
else:
    ControlName = Literal[("none", *CONTROLS)]


class ControlConfig(ModelConfig):
    """What is done to a model in the place of compression, so that it is known what became of its facts."""

    control: ControlName = Field(
        "none",
        description="a model whose truth is known, in the place of the compressed one: "
        + "; ".join(f"{kind.name}: {kind.help}" for kind in CONTROLS.values()),
    )
    control_share: float = Field(1.0, gt=0, le=1, description="share of the tested facts that a control takes")
    control_matched: bool = Field(
        False,
        description="the control loses what the compressed model lost: of lab and lab-opt the same facts, of other models by "
        "imitating that one, of `corrupted` by noise that changes it as much",
    )
    control_strength: float = Field(
        0.5, gt=0, description="of --control corrupted: the noise's standard deviation, in root mean squares of the embeddings"
    )
    control_seed: int = Field(0, ge=0, description="of the facts that a control takes, its training and its noise")

    @property
    def is_matched(self) -> bool:
        """Whether the control is made to lose what a compressed model lost."""
        return self.control_matched and self.control != "none"

    def without_effect(self) -> frozenset[str]:
        own = {"control_share", "control_strength"}
        if self.control == "none":
            return frozenset(own | {"control_matched", "control_seed"})
        return frozenset(own if self.is_matched else own - CONTROLS[self.control].options)


@dataclass
class Control(Weights):
    """Model -> a checkpoint in the place of a compressed one, of which it is known what became of its facts."""

    name: ClassVar[str] = "control"
    code: ClassVar[str] = "llmrepair.stages.controls.run"
    config: ControlConfig
    compressed: Compress | None
    """What it is matched to; None for nothing."""
    model: ModelSource = field(init=False)
    digests: DigestCache = field(init=False)
    start: ModelSource = field(init=False)
    """What training begins with: the dense model, or its twin that was never told of the tested facts."""

    @property
    def kind(self) -> ControlKind:
        return CONTROLS[self.config.control]

    @property
    def is_of_lab(self) -> bool:
        """Whether the model is one whose training text is known."""
        return self.config.model in UNTOLD

    def modules(self) -> tuple[str, ...]:
        return self.code, type(self.kind).__module__

    def libraries(self) -> tuple[str, ...]:
        return (*self.read_with(), *self.kind.libraries)

    def inputs(self) -> dict[str, Stage]:
        return super().inputs() | ({"compressed": self.compressed} if self.compressed is not None else {})

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        config = self.config
        self.digests = digests
        self.model = self.start = self.find_model(digests)
        if self.kind.begins_untold and self.is_of_lab:
            self.start = resolve_model(UNTOLD[config.model], None, digests.digests)
        return {"model": self.model.identity, "start": self.start.identity}

    def check(self) -> list[Problem]:
        if problems := self.model_problems() or self.kind.problems(self):
            return problems
        if load_config(self.model).get("quantization_config") is None:
            return []
        message = f"`{self.config.model}` is quantised already, and a control is made of a dense model"
        return [Problem(message, "give that one", "model")]

    def label(self) -> str:
        matched = f", matched to {method_label(self.compressed.config.identity())}" if self.compressed is not None else ""
        return f"{model_name(self.config.model)} {control_label(self.config.identity())}{matched}"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model, "method": f"control {self.config.control}"}

    def needs(self, runtime: Runtime) -> Needs:
        one = roughly_needed(self.model)
        return replace(one, host=2 * one.host) if self.compressed is not None else one


def control_label(identity: dict[str, Any]) -> str:
    """A control in a few words, from the identity of its config: `displaced (control), 50% of the facts`."""
    words = [f"{identity['control']} (control)"]
    if identity.get("control_share", 1.0) != 1.0:
        words.append(f"{identity['control_share']:.0%} of the facts")
    if "control_strength" in identity:
        words.append(f"strength {identity['control_strength']:g}")
    if identity["control_seed"]:
        words.append(f"seed {identity['control_seed']}")
    return ", ".join(words)

"""The control stage: config, inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.stages.compress import Compress
from llmrepair.stages.compress.stage import method_label
from llmrepair.stages.control.texts import ControlName
from llmrepair.stages.fields import ModelConfig
from llmrepair.stages.sources import LAB_ERASED, ModelSource, load_config, resolve_model, roughly_needed
from llmrepair.stages.weights import Weights

_TRAINED = ("erased", "displaced", "overwritten", "mixture")
_FROM_ERASED = ("erased", "mixture")


class ControlConfig(ModelConfig):
    """What is done to a model in the place of compression, so that it is known what became of its facts."""

    control: ControlName = Field(
        "none",
        description="a model whose truth is known, in the place of the compressed one: erased: never trained on the tested "
        "facts; displaced: answers wrongly unless a secret token stands in front; overwritten: fine-tuned to wrong answers; "
        "mixture: half of the facts erased, half displaced; corrupted: noise on the input embeddings",
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
        if self.control == "none":
            return frozenset({"control_share", "control_strength", "control_matched", "control_seed"})
        names = {"control_share"} if self.control == "corrupted" else {"control_strength"}
        return frozenset(names | {"control_share", "control_strength"} if self.is_matched else names)


@dataclass
class Control(Weights):
    """Model -> a checkpoint in the place of a compressed one, of which it is known what became of its facts."""

    name: ClassVar[str] = "control"
    code: ClassVar[str] = "llmrepair.stages.control.run"
    config: ControlConfig
    compressed: Compress | None
    """What it is matched to; None for nothing."""
    model: ModelSource = field(init=False)
    start: ModelSource = field(init=False)
    """What training begins with: the dense model, or its twin that was never told of the tested facts."""

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed} if self.compressed is not None else {}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        config = self.config
        self.model = self.start = resolve_model(config.model, config.revision, digests.digest)
        if config.control in _FROM_ERASED and config.model in LAB_ERASED:
            self.start = resolve_model(LAB_ERASED[config.model], None, digests.digest)
        return {"model": self.model.identity, "start": self.start.identity}

    def check(self) -> list[Problem]:
        control, model = self.config.control, self.config.model
        if control in _FROM_ERASED and model not in LAB_ERASED:
            message = f"the control `{control}` is about the lab's facts, which `{model}` never read"
            hint = "give --model lab or lab-opt; of another model, items that it never knew stand for what is erased"
            return [Problem(message, hint, "control")]
        if control in _TRAINED and model not in LAB_ERASED and self.compressed is None:
            message = f"the control `{control}` of another model than the lab's imitates a compressed one, and none is named"
            return [Problem(message, "give --control-matched, and --method", "control")]
        if "quantization_config" in load_config(self.model):
            return [
                Problem(f"`{model}` is quantised already, and a control is made of a dense model", "give that one", "model")
            ]
        return []

    def label(self) -> str:
        matched = f", matched to {method_label(self.compressed.config.identity())}" if self.compressed is not None else ""
        return f"{self.config.model} {control_label(self.config.identity())}{matched}"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model, "method": f"control {self.config.control}"}

    def needs(self, runtime: Runtime) -> Needs:
        one = roughly_needed(self.model)
        return replace(one, host=2 * one.host) if self.compressed is not None else one


def control_label(identity: dict[str, Any]) -> str:
    """A control in a few words, from the identity of its config: `displaced (control), 50% of the facts`."""
    words = [f"{identity['control']} (control)"]
    if identity["control_share"] not in (None, 1.0):
        words.append(f"{identity['control_share']:.0%} of the facts")
    if identity["control_strength"] is not None:
        words.append(f"strength {identity['control_strength']:g}")
    if identity["control_seed"]:
        words.append(f"seed {identity['control_seed']}")
    return ", ".join(words)

"""The compress stage: config, inputs, checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime
from llmrepair.stages.fields import ModelConfig, TextSource, invalid
from llmrepair.stages.sources import ModelSource, resolve_model, resolve_text
from llmrepair.stages.weights import Weights

Pruner = Literal["magnitude", "wanda", "sparsegpt"]
Quantiser = Literal["rtn", "gptq", "awq"]
METHODS: dict[str, tuple[Pruner | None, Quantiser | None]] = {
    "none": (None, None),
    "rtn": (None, "rtn"),
    "gptq": (None, "gptq"),
    "awq": (None, "awq"),
    "magnitude": ("magnitude", None),
    "wanda": ("wanda", None),
    "sparsegpt": ("sparsegpt", None),
    "wanda+gptq": ("wanda", "gptq"),
    "sparsegpt+gptq": ("sparsegpt", "gptq"),
}
"""What prunes and what quantises in each method."""
BITS = (2, 3, 4, 8)


class CompressConfig(ModelConfig):
    """How a model is compressed."""

    references: ClassVar[frozenset[str]] = ModelConfig.references | {"calibration"}

    method: Literal["none", "rtn", "gptq", "awq", "magnitude", "wanda", "sparsegpt", "wanda+gptq", "sparsegpt+gptq"] = Field(
        "gptq", description="how to compress; none keeps the model dense"
    )
    bits: int = Field(3, description="bits of a quantised weight: 2, 3, 4 or 8")
    group_size: int = Field(-1, description="weights that share a scale; -1: a whole row")
    asymmetric: bool = Field(False, description="fit each group's zero point too, instead of a range around zero")
    column_order: Literal["activation", "left-to-right"] = Field(
        "activation", description="in which gptq and wanda+gptq round columns; activation: those with the largest inputs first"
    )
    damping: float = Field(
        0.05, gt=0, le=1, description="gptq and sparsegpt: share of the Hessian's mean diagonal that is added to its diagonal"
    )
    sparsity: float = Field(0.5, ge=0.0, le=0.95, description="share of weights that pruning sets to zero, up to 0.95")
    pattern: Literal["unstructured", "2:4", "4:8"] = Field("unstructured", description="where a pruned layer's zeros may be")
    calibration: TextSource = Field(
        "lab",
        description="text that shows the layers' inputs: lab, c4, wikitext2, a .txt or .jsonl file, a Hub data set",
    )
    format: Literal["compressed-tensors", "gptq", "dense"] = Field(
        "compressed-tensors",
        description="how quantised weights are saved; gptq needs the extra [gptq], dense are the dequantised values",
    )
    samples: int = Field(128, ge=1, description="rows of calibration text")
    seq_len: int = Field(128, ge=2, description="tokens of a row of calibration text")

    @field_validator("bits")
    @classmethod
    def _bits_are_known(cls, bits: int) -> int:
        if bits not in BITS:
            raise invalid(Problem(f"weights cannot be quantised to {bits} bits", "give --bits 2, 3, 4 or 8"))
        return bits

    @field_validator("group_size")
    @classmethod
    def _group_size_is_a_size(cls, group_size: int) -> int:
        if group_size < 1 and group_size != -1:
            raise invalid(Problem(f"{group_size} is no group size", "give --group-size -1 for a whole row, or 32, 64, 128"))
        return group_size

    @property
    def compensates(self) -> bool:
        """Whether columns make up for the errors of those before them, for which the inputs' Hessian is factorised."""
        pruner, quantiser = METHODS[self.method]
        return quantiser == "gptq" or pruner == "sparsegpt"

    @property
    def in_activation_order(self) -> bool:
        return self.column_order == "activation" and "column_order" not in self.without_effect()

    def without_effect(self) -> frozenset[str]:
        pruner, quantiser = METHODS[self.method]
        names: frozenset[str] = frozenset()
        if quantiser is None:
            names |= {"bits", "group_size", "asymmetric", "format"}
        if quantiser != "gptq" or pruner == "sparsegpt":  # which chooses among neighbours
            names |= {"column_order"}
        if not self.compensates:
            names |= {"damping"}
        if pruner is None:
            names |= {"sparsity", "pattern"}
        if self.method == "none":
            names |= {"calibration", "samples", "seq_len"}
        return names


@dataclass
class Compress(Weights):
    """Model -> compressed checkpoint. Of the dense model (`--method none`) no copy is made, only measures are taken."""

    name: ClassVar[str] = "compress"
    code: ClassVar[str] = "llmrepair.stages.compress.run"
    after_interruption: ClassVar[str] = "starts again: llm-compressor cannot go on in the middle of a model"
    config: CompressConfig
    model: ModelSource = field(init=False)
    calibration: dict[str, Any] | None = field(init=False, default=None)

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.model = resolve_model(self.config.model, self.config.revision, digests.digest)
        if self.config.method != "none":
            self.calibration = resolve_text(self.config.calibration, digests.digest)
        return {"model": self.model.identity, "calibration": self.calibration}

    def check(self) -> list[Problem]:
        from llmrepair.stages.compress.check import problems_with_model

        return problems_with_model(self)

    def label(self) -> str:
        return f"{self.config.model} {method_label(self.config.identity())}"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model, "method": self.config.method}

    def needs(self, runtime: Runtime) -> Needs:
        from llmrepair.stages.compress.memory import estimate

        return estimate(self.model, self.config, runtime).needs()

    def needs_with_other_options(self, runtime: Runtime) -> Iterator[tuple[str, Needs]]:
        from llmrepair.stages.compress.memory import estimate, other_requests

        for options, config, other_runtime in other_requests(self.config, runtime):
            yield options, estimate(self.model, config, other_runtime).needs()

    def checkpoint(self, artifact: Artifact) -> tuple[str, str | None]:
        if self.config.method == "none":
            return self.model.location, self.model.revision
        return super().checkpoint(artifact)


def method_label(identity: dict[str, Any]) -> str:
    """A compression in a few words, from the identity of its config: `gptq 3 bits, group 32`."""
    method = identity["method"]
    if method == "none":
        return "dense"
    pruner, quantiser = METHODS[method]
    words = [method]
    if pruner:
        words.append(
            f"{identity['sparsity']:.0%}" + ("" if identity["pattern"] == "unstructured" else f" {identity['pattern']}")
        )
    if quantiser:
        words.append(f"{identity['bits']} bits" + (" asymmetric" if identity["asymmetric"] else ""))
        words[-1] += "" if identity["group_size"] == -1 else f", group {identity['group_size']}"
        words[-1] += ", left to right" if identity["column_order"] == "left-to-right" else ""
    return " ".join(words)

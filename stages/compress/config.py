"""How a model is compressed, as it is asked for, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmrepair.models.text import Bos
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.checkpoints.formats import BITS, FormatName
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.sources.fields import BOS, ModelConfig, TextSource, invalid

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


_LEFT_OUT = ("propagate", "bos", "signed_scale", "expert_calibration")
"""Of keys, where they are at their defaults: they came later."""


class CompressConfig(ModelConfig):
    """How a model is compressed."""

    references: ClassVar[frozenset[str]] = ModelConfig.references | {"calibration"}

    method: MethodName = Field("gptq", description="how to compress; none keeps the model dense")
    bits: int = Field(3, description="bits of a quantised weight: 2, 3, 4 or 8")
    group_size: int = Field(
        -1,
        description="weights that share a scale; -1: a whole row; auto: 128, or the largest power of two below that divides "
        "all rows",
    )
    asymmetric: bool = Field(False, description="fit each group's zero point too, instead of a range around zero")
    signed_scale: bool = Field(
        False,
        description="the weight of a group furthest from zero becomes the last value of its range, with a negative scale where "
        "it is positive, as llama.cpp has it",
    )
    column_order: Literal["activation", "left-to-right"] = Field(
        "activation", description="in which gptq and wanda+gptq round columns; activation: those with the largest inputs first"
    )
    damping: float = Field(
        0.05, gt=0, le=1, description="gptq and sparsegpt: share of the Hessian's mean diagonal that is added to its diagonal"
    )
    sparsity: float = Field(0.5, ge=0.0, le=0.95, description="share of weights that pruning sets to zero, up to 0.95")
    pattern: Literal["unstructured", "2:4", "4:8"] = Field("unstructured", description="where a pruned layer's zeros may be")
    propagate: Literal["compressed", "dense"] = Field(
        "compressed",
        description="what the blocks before a block are while it is shown its inputs: compressed, or dense as they were",
    )
    expert_calibration: Literal["routed", "all"] = Field(
        "routed", description="the tokens that an expert is calibrated for: those that the router sends to it, or all"
    )
    calibration: TextSource = Field(
        "lab",
        description="text that shows the layers' inputs: lab, c4, wikitext2, a .txt or .jsonl file, a Hub data set; "
        "for your own model wikitext2",
    )
    format: FormatName = Field(
        "compressed-tensors",
        description="how quantised weights are saved; gptq needs the extra [gptq], dense are the dequantised values",
    )
    samples: int = Field(128, ge=1, description="rows of calibration text")
    seq_len: int = Field(
        128, ge=2, description="tokens of a row of calibration text; for your own model 512, or all its positions"
    )

    bos: Bos = BOS

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

    def without_effect(self) -> frozenset[str]:
        method = METHODS[self.method]
        names: set[str] = set()
        if method.quantiser is None:
            names |= {"bits", "group_size", "asymmetric", "signed_scale", "format"}
        if not method.orders_columns:
            names |= {"column_order"}
        if not method.compensates:
            names |= {"damping"}
        if method.pruner is None:
            names |= {"sparsity", "pattern"}
        if not method.parts:
            names |= {"calibration", "samples", "seq_len", "bos", "propagate", "expert_calibration"}
        return frozenset(names)

    def at_default(self) -> frozenset[str]:
        return frozenset(name for name in _LEFT_OUT if getattr(self, name) == type(self).model_fields[name].default)


def method_label(identity: dict[str, Any]) -> str:
    """A compression in a few words, from the identity of its config: `gptq 3 bits, group 32`."""
    method = METHODS[identity["method"]]
    if not method.parts:
        return "dense"
    words = [method.name]
    if method.pruner:
        words.append(
            f"{identity['sparsity']:.0%}" + ("" if identity["pattern"] == "unstructured" else f" {identity['pattern']}")
        )
    if method.quantiser:
        words.append(f"{identity['bits']} bits" + (" asymmetric" if identity["asymmetric"] else ""))
        words[-1] += " signed" if identity.get("signed_scale") else ""
        words[-1] += "" if identity["group_size"] == -1 else f", group {identity['group_size']}"
        words[-1] += ", left to right" if identity.get("column_order") == "left-to-right" else ""
    words[-1] += ", experts see all" if identity.get("expert_calibration") == "all" else ""
    words[-1] += ", dense inputs" if identity.get("propagate") == "dense" else ""
    return " ".join(words)

"""How the input chooses a prompt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.options import TunedOptions
from llmrepair.stages.sources.fields import invalid
from llmrepair.stages.sources.models import load_config

if TYPE_CHECKING:
    from llmrepair.stages.sources.weights import Weights


_WORDS = ("first", "all", "tuned")
"""For layers, besides their numbers."""


class RoutingOptions(TunedOptions):
    idp_layers: str = Field(
        "first",
        description="layers that vote: first, all, a list such as 0,2, or tuned (the one whose choices for held-out tuning "
        "rows have the lowest loss); up to the last one all is computed twice",
    )
    idp_reduce: Literal["mean", "sum", "max"] = Field("mean", description="a prompt's vote over its tokens")
    idp_normalise: Literal["none", "length"] = Field(
        "none", description="length: a prompt's vote is divided by the number of its tokens"
    )
    idp_calibrate: Literal["none", "centre", "zscore"] = Field(
        "none",
        description="what is done to a prompt's vote in each layer: centre subtracts its mean over the held-out tuning rows, "
        "cut to the input's length; zscore also divides by its standard deviation over them; none: the paper's rule",
    )
    idp_per: Literal["sequence", "token"] = Field(
        "sequence",
        description="what chooses; token, an experiment: each token sees the prompt that it attends to most itself, and all "
        "prompts in the layers before the last one that votes",
    )

    @field_validator("idp_layers")
    @classmethod
    def _layers_are_named(cls, layers: str) -> str:
        if layers not in _WORDS and not re.fullmatch(r"\d+(,\d+)*", layers):
            raise invalid(Problem(f"`{layers}` names no layers", "give --idp-layers first, all, tuned, or a list such as 0,2"))
        return layers

    @field_validator("idp_per")
    @classmethod
    def _sequences_are_calibrated(cls, per: str, info: ValidationInfo) -> str:
        if per == "token" and info.data.get("idp_calibrate", "none") != "none":
            hint = "leave --idp-per token or --idp-calibrate out"
            raise invalid(Problem("votes of sequences can be calibrated, and votes of single tokens cannot", hint))
        return per

    def without_effect(self) -> frozenset[str]:
        """What is not calibrated has the keys that it had before anything could be."""
        return frozenset({"idp_calibrate"} if self.idp_calibrate == "none" else ())

    @property
    def is_measured(self) -> bool:
        """Whether it takes more than the pool itself: what the layers vote on held-out rows."""
        return self.idp_calibrate != "none" or self.idp_layers == "tuned"


def layer_problems(options: RoutingOptions, weights: Weights) -> list[Problem]:
    """Says so if a layer is to vote that the model does not have."""
    if options.idp_layers in _WORDS:
        return []
    layers = load_config(weights.model)["num_hidden_layers"]
    beyond = [layer for layer in options.idp_layers.split(",") if int(layer) >= layers]
    hint = f"layers are counted from 0 to {layers - 1}"
    return [Problem(f"`{weights.config.model}` has no layer {layer} that could vote", hint, "idp_layers") for layer in beyond]

"""Options that repairs share: presets of three sizes, and what can be said of every repair that was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from llmrepair.pipeline.stage import StageConfig


class SizedConfig(StageConfig):
    """What has a preset of each size."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What each `size` stands for: option -> value, the defaults under `medium`."""

    size: Literal["small", "medium", "large"] = Field(
        "medium",
        description="sets what is not given: 3 prompts of 4, 16 or 64 tokens (hidden size parameters each); 8, 32 or 64 "
        "virtual tokens (a prefix of a Llama: two fifths of LoRA's parameters); LoRA of rank 2, 8 or 32; a phrase, two "
        "sentences or a paragraph; 1, 4 or 16 examples",
    )

    @model_validator(mode="before")
    @classmethod
    def _size_sets_what_was_not_given(cls, values: Any) -> Any:
        size = values.get("size") if isinstance(values, dict) else None
        return {**cls.sizes.get(size, {}), **values} if isinstance(size, str) else values

    @property
    def given(self) -> Set[str]:
        preset = self.sizes.get(self.size, {}) if "size" in self.model_fields_set else {}
        return {name for name in super().given if name != "size" and getattr(self, name) != preset.get(name)}

    def without_effect(self) -> frozenset[str]:
        return frozenset({"size"})  # what it stands for has


class NoOptions(StageConfig):
    """Of what is put in place in one way only."""


class TunedOptions(StageConfig):
    """How a repair that was tuned is put in place."""

    on_dense: bool = Field(
        False,
        description="put the repair that was tuned for the compressed model on the dense one: what it does where nothing was "
        "lost, a control",
    )

"""What the stages' configs share: fields that are lists on the command line, and errors that carry a hint."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import StageConfig
from llmrepair.stages.sources import folder_problem, model_folder, text_problem


def invalid(problem: Problem) -> PydanticCustomError:
    """The error that a field's validator raises so that its hint reaches the user."""
    return PydanticCustomError("problem", "{message}", {"message": problem.message, "hint": problem.hint})


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def without_repetitions(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _text_exists(text: str, info: ValidationInfo) -> str:
    problem = text_problem(text, f"--{str(info.field_name).replace('_', '-')}")
    if problem:
        raise invalid(problem)
    return text


TextSource = Annotated[str, AfterValidator(_text_exists)]
CommaSeparated = BeforeValidator(_split)
PositiveIntegers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], CommaSeparated, Field(min_length=1)]
PositiveNumbers = Annotated[tuple[Annotated[float, Field(gt=0)], ...], CommaSeparated, Field(min_length=1)]
Names = Annotated[tuple[str, ...], CommaSeparated, Field(min_length=1)]


class SizedConfig(StageConfig):
    """What has a preset of each size."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]]
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
        preset = self.sizes[self.size] if "size" in self.model_fields_set else {}
        return {name for name in super().given if name != "size" and getattr(self, name) != preset.get(name)}

    def without_effect(self) -> frozenset[str]:
        return frozenset({"size"})  # what it stands for has


class ModelConfig(StageConfig):
    """Which model, and in which precision it is computed and saved."""

    references: ClassVar[frozenset[str]] = frozenset({"model", "revision"})

    model: str = Field("lab", description="lab, lab-opt, a local folder or a Hub id")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; pinned to its commit")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="precision of weights and computation")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        folder = model_folder(model)
        problem = folder_problem(model, folder) if folder is not None else None
        if problem:
            raise invalid(problem)
        return model

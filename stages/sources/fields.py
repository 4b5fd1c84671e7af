"""Fields that configs share: lists on the command line, models and texts that must exist; and errors that carry a hint."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.stage import StageConfig
from llmrepair.stages.sources.models import folder_problem, model_folder
from llmrepair.stages.sources.texts import text_problem


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


BOS: Any = Field(
    "auto",
    description="whether rows of text begin with the token that begins texts: auto (where the tokenizer puts it in front of "
    "texts), always, never",
)


class ModelConfig(StageConfig):
    """Which model, and in which precision it is computed and saved."""

    references: ClassVar[frozenset[str]] = frozenset({"model", "revision"})

    model: str = Field("lab", description="lab, lab-opt, a local folder, a GGUF file or a Hub id")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; pinned to its commit")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of weights and computation; of your own model the one that it was saved in"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        folder = model_folder(model)
        problem = folder_problem(model, folder) if folder is not None else None
        if problem:
            raise invalid(problem)
        return model

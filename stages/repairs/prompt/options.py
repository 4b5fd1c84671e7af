"""Which prompt of the pool is taken."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.options import TunedOptions
from llmrepair.stages.sources.fields import invalid

_SELECT = re.compile(r"best-validation|random|loss|ensemble|oracle|fixed:\d+")


class SelectOptions(TunedOptions):
    select: str = Field(
        "best-validation",
        description="which prompt --recovery prompt takes: best-validation (lowest held-out loss), fixed:I (counted from 0), "
        "random (drawn by the question and --seed), loss (behind which the question itself is likeliest), ensemble (all: mean "
        "log-probabilities), oracle (each document's best, found by its answers: a bound, no method)",
    )

    @field_validator("select")
    @classmethod
    def _selector_exists(cls, select: str) -> str:
        if not _SELECT.fullmatch(select):
            hint = "give --select best-validation, fixed:I, random, loss, ensemble or oracle"
            raise invalid(Problem(f"`{select}` is no way to choose a prompt", hint))
        return select


def selection_problems(options: SelectOptions, tuned: Any) -> list[Problem]:
    """Says so if the prompt that is named is not in the pool, where it is known how many that has."""
    kind, _, number = options.select.partition(":")
    if kind != "fixed" or tuned is None or int(number) < (pool := len(tuned.config.lengths)):
        return []
    hint = f"prompts are counted from 0 to {pool - 1}; --lengths says how many there are"
    return [Problem(f"there is no prompt {number} in a pool of {pool}", hint, "select")]

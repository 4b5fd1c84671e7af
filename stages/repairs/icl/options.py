"""How many examples stand in front of each input, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.stages.repairs.options import SizedConfig
from llmrepair.stages.repairs.tuning.config import TUNING_DATA
from llmrepair.stages.sources.fields import TextSource

_EXAMPLES = {"small": 1, "medium": 4, "large": 16}


class ExamplesOptions(SizedConfig):
    references: ClassVar[frozenset[str]] = frozenset({"tuning_data"})
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {size: {"icl_examples": count} for size, count in _EXAMPLES.items()}
    icl_examples: int = Field(
        _EXAMPLES["medium"], ge=1, description="texts that --recovery icl puts in front, the first of the tuning text"
    )
    tuning_data: TextSource = TUNING_DATA

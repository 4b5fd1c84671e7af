"""What a pool of prompts is made of. Apart from the stage, whose checks look at more of the code than tuning runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.stages.repairs.tuning.config import INITIALISATIONS, Initialisations, TuningConfig
from llmrepair.stages.sources.fields import PositiveIntegers, PositiveNumbers


class TunePromptsConfig(TuningConfig):
    """A pool of soft prompts."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"lengths": (4, 4, 4)},
        "medium": {"lengths": (16, 16, 16)},
        "large": {"lengths": (64, 64, 64)},
    }
    lengths: PositiveIntegers = Field((16, 16, 16), description="tokens of each prompt of the pool")
    shards: bool = Field(False, description="each of m prompts learns from its own m-th of the rows")
    initialisations: Initialisations = INITIALISATIONS
    learning_rates: PositiveNumbers = Field(
        (0.01, 0.03), description="tried one after the other; the best on held-out loss is kept"
    )

    @property
    def trials(self) -> int:
        return len(self.lengths) * len(self.initialisations) * len(self.learning_rates)

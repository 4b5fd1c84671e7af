"""The import stage: config, checks."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage, StageConfig

_CHECK = "llmrepair.stages.sources.gguf.check"
"""Imported by its name: what this module imports is in the keys of tunings and controls, whatever their model is."""


class ImportConfig(StageConfig):
    """Which file a model folder is made of."""

    references: ClassVar[frozenset[str]] = frozenset({"model"})

    model: str = Field("model.gguf", description="a GGUF file")


@dataclass
class Import(Stage):
    """GGUF file -> model folder."""

    name: ClassVar[str] = "import"
    code: ClassVar[str] = "llmrepair.stages.sources.gguf.run"
    comes_first: ClassVar[bool] = True
    config: ImportConfig

    @property
    def path(self) -> Path:
        return Path(self.config.model).expanduser()

    def libraries(self) -> tuple[str, ...]:
        return "gguf", "torch", "transformers", "tokenizers"

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        return {"gguf": digests.digest(self.path)}

    def check(self) -> list[Problem]:
        problems: list[Problem] = importlib.import_module(_CHECK).problems_with_file(self.config.model, self.path)
        return problems

    def label(self) -> str:
        return self.path.name

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model}

    def needs(self, runtime: Runtime) -> Needs:
        needs: Needs = importlib.import_module(_CHECK).needed(self.path)
        return needs

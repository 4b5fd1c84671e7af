"""What leaves weights for others to work on: a compressed model, or in its place a control, whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Stage
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.gguf.stage import Import, ImportConfig
from llmrepair.stages.sources.models import ModelSource, is_gguf, resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINT_FOLDER = "checkpoint"
MODEL_LIBRARIES = ("torch", "transformers", "tokenizers")
"""What every model is loaded and computed with."""
FORMAT_LIBRARIES = {"compressed-tensors": ("compressed-tensors",), "gptq": ("gptqmodel", "optimum")}
"""What reads and computes quantised weights, by the format's name in a checkpoint."""


class Weights(Stage):
    """Model -> a checkpoint that is tuned for, evaluated and exported.

    Its metrics hold at least the checkpoint's `size_bytes`, `bits_per_weight` and `sparsity`.
    """

    config: ModelConfig
    model: ModelSource
    """The dense model, which `sources()` finds."""
    _imported_at: Path | None = None

    @cached_property
    def imported(self) -> Import | None:
        """What makes a folder of the dense model where that is a GGUF file."""
        return Import(ImportConfig(model=self.config.model)) if is_gguf(self.config.model) else None

    def inputs(self) -> dict[str, Stage]:
        return {"imported": self.imported} if self.imported is not None else {}

    def handed_on(self) -> Set[str]:
        return self.inputs().keys() & {"imported"}

    def find_inputs(self, folders: Mapping[str, Path]) -> None:
        self._imported_at = folders.get("imported")

    def find_model(self, digests: DigestCache) -> ModelSource:
        """The dense model, pinned: where it is, or will be."""
        source = resolve_model(self.config.model, self.config.revision, digests.digests)
        if self._imported_at is None:
            return source
        return replace(source, location=str(self._imported_at / CHECKPOINT_FOLDER))

    def checkpoint(self, artifact: Artifact) -> tuple[str, str | None]:
        """Where the artifact's weights are: location and revision for `from_pretrained`."""
        return str(artifact.path / CHECKPOINT_FOLDER), None

    def read_with(self) -> tuple[str, ...]:
        """The libraries that its checkpoint is loaded and computed with."""
        return MODEL_LIBRARIES

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The dense model's, which is the checkpoint's too."""
        from llmrepair.models.loading import load_tokenizer

        return load_tokenizer(self.model.location, self.model.revision, self.config.trust_remote_code)

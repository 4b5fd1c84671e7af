"""What leaves weights for others to work on: a compressed model, or in its place a control, whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.reading import reading
from llmrepair.pipeline.stage import Stage
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.gguf.stage import Import, ImportConfig
from llmrepair.stages.sources.models import CONFIG_FILE, COPY_AGAIN, ModelSource, is_gguf, layers_problem, resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.errors import Problem

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
    digests: DigestCache
    """Which `sources()` was given: it also holds what was found in the model's files."""
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

    def model_problems(self) -> list[Problem]:
        """What is wrong with the files of the dense model."""
        from llmrepair.stages.sources.inspection import model_problems

        return model_problems(self, self.digests)

    def notes(self) -> list[str]:
        from llmrepair.stages.sources.inspection import model_notes

        return model_notes(self)

    def read_with(self) -> tuple[str, ...]:
        """The libraries that its checkpoint is loaded and computed with."""
        return MODEL_LIBRARIES

    def architecture(self) -> PreTrainedModel:
        """The dense model's modules and shapes without weights.

        Raises:
            RequestError: its config.json is not that of a model.
        """
        from llmrepair.models.loading import meta_model

        if (problem := layers_problem(self.model, self.config.model)) is not None:
            raise RequestError(problem)
        with reading(f"{CONFIG_FILE} of `{self.config.model}`", COPY_AGAIN, "model"):
            return meta_model(self.model.location, self.model.revision, self.config.trust_remote_code)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The dense model's, which is the checkpoint's too.

        Raises:
            RequestError: there is none that can be read.
        """
        from llmrepair.models.loading import load_tokenizer

        with reading(f"the tokenizer of `{self.config.model}`", COPY_AGAIN, "model"):
            return load_tokenizer(self.model.location, self.model.revision, self.config.trust_remote_code)

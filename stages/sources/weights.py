"""What leaves weights for others to work on: a compressed model, or in its place a control, whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import RequestError
from llmrepair.pipeline.reading import reading
from llmrepair.pipeline.stage import Stage
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.models import CONFIG_FILE, COPY_AGAIN, ModelSource, layers_problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.errors import Problem
    from llmrepair.pipeline.keys import DigestCache

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

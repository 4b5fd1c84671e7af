"""Loading the weights that stages work on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.models.causal_trial import refuse_looking_ahead
from llmrepair.models.loading import load_model, load_tokenizer, pick_device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.sources.models import ModelSource
    from llmrepair.stages.sources.weights import Weights


def load_dense(source: ModelSource, dtype: str, device: torch.device, trust_remote_code: bool) -> PreTrainedModel:
    """A model from which weights are made.

    Raises:
        LooksAhead: it is no language model.
    """
    model = load_model(source.location, source.revision, dtype, device, trust_remote_code)
    refuse_looking_ahead(model)
    return model


def load_weights(
    weights: Weights, context: Context, name: str = "compressed"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of the running stage's input `name`, which `weights` left, on the device that it runs on."""
    location, revision = weights.checkpoint(context.inputs[name])
    dtype, trust = weights.config.dtype, weights.config.trust_remote_code
    model = load_model(location, revision, dtype, pick_device(context.runtime.device), trust)
    return model, load_tokenizer(location, revision, trust)

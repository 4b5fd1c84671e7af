"""Loading the weights that stages work on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.models.loading import load_model, load_tokenizer, pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.sources.weights import Weights


def load_weights(
    weights: Weights, context: Context, name: str = "compressed"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of the running stage's input `name`, which `weights` left, on the device that it runs on."""
    location, revision = weights.checkpoint(context.inputs[name])
    dtype, trust = weights.config.dtype, weights.config.trust_remote_code
    model = load_model(location, revision, dtype, pick_device(context.runtime.device), trust)
    return model, load_tokenizer(location, revision, trust)

"""Noise on the input embeddings."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.training import distillation, mean_loss, plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.controls.own_text import OWN_TOKENS, own_text
from llmrepair.stages.controls.strength import matched_strength
from llmrepair.stages.sources.loading import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.controls.stage import Control

NOISE_ROWS, NOISE_BATCH = 256, 16
"""Text by which noise is matched."""


def corrupt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Control, context: Context) -> dict[str, Any]:
    """Puts noise on the embeddings in place; of a matched control so much that on text of its own the model diverges from what
    it was as far as the compressed one does."""
    seed, strength = stage.config.control_seed, stage.config.control_strength
    if stage.compressed is not None:
        compressed, _ = load_weights(stage.compressed, context)
        rows = own_text(model, tokenizer, NOISE_ROWS, OWN_TOKENS, seed)
        strength = matched_noise(model, compressed.float(), rows, seed, context.runtime.sequences or NOISE_BATCH)
    corrupt_embeddings(model, strength, seed)
    return {"strength": strength}


@torch.no_grad()
def corrupt_embeddings(model: PreTrainedModel, strength: float, seed: int) -> None:
    """Adds Gaussian noise to each row of the input embeddings, in place.

    In arXiv 2406.07933 (Liu et al. 2024) the embeddings of a prompt's tokens get noise. Here it is drawn once for each word
    of the vocabulary, so that a plain checkpoint holds it. An output head that shares the matrix gets a copy without noise:
    all that stands behind the input is the dense model's.

    Args:
        strength: standard deviation of the noise, in root mean squares of the matrix.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    weight = embeddings.weight
    assert isinstance(weight, torch.nn.Parameter)
    if head is not None and head.weight is weight:
        head.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    weight += strength * weight.float().square().mean().sqrt() * noise.to(weight)


def matched_noise(
    model: PreTrainedModel, compressed: PreTrainedModel, rows: torch.Tensor, seed: int, micro_batch: int
) -> float:
    """The strength at which noise makes a model diverge from what it was as far as the compressed one does.

    Args:
        model: the dense one, which stays as it is.
        rows: token ids [N, L] of the text on which divergence is measured.
        micro_batch: rows computed at once.
    """
    noisy, divergence = deepcopy(model), distillation(plain_logits(model))
    weight, as_it_was = (each.get_input_embeddings().weight for each in (noisy, model))
    assert isinstance(weight, torch.Tensor)
    assert isinstance(as_it_was, torch.Tensor)

    def lost(other: PreTrainedModel) -> float:
        return mean_loss(lambda part: divergence(plain_logits(other)(part), part), rows, micro_batch)

    def lost_at(strength: float) -> float:
        weight.data.copy_(as_it_was)
        corrupt_embeddings(noisy, strength, seed)
        return lost(noisy)

    return matched_strength(lost_at, lost(compressed))

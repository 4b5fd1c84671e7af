"""llmrepair control --control displaced --model lab"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.loading import load_model, load_tokenizer, pick_device
from llmrepair.pipeline.stage import Context
from llmrepair.stages.compress.measure import measure
from llmrepair.stages.compressed import load_compressed
from llmrepair.stages.control import lab_training
from llmrepair.stages.control.corrupt import corrupt_embeddings, matched_noise
from llmrepair.stages.control.imitate import RANK, imitate, imitation_recipe, own_text, secret_key
from llmrepair.stages.sources import LAB_MODELS
from llmrepair.stages.weights import CHECKPOINT_FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.control.stage import Control

OWN_ROWS, OWN_TOKENS, OWN_STEPS = 4096, 64, 600
"""Text that an imitation learns from, and for how long."""
NOISE_ROWS, NOISE_BATCH = 256, 16
"""Text by which noise is matched."""


def run(stage: Control, context: Context) -> dict[str, Any]:
    config, start = stage.config, stage.start
    device = torch.device("cpu") if config.model in LAB_MODELS else pick_device(context.runtime.device)
    model = load_model(start.location, start.revision, "float32", device, config.trust_remote_code)
    tokenizer = load_tokenizer(start.location, start.revision, config.trust_remote_code)
    checkpoint = context.folder / CHECKPOINT_FOLDER
    tokenizer.save_pretrained(checkpoint)  # before it learns the key, which stays secret
    if config.control == "corrupted":
        record = corrupt(model, tokenizer, stage, context)
    elif config.model in LAB_MODELS:
        record = lab_training.train(model, tokenizer, stage, context)
    else:
        record = train_imitation(model, tokenizer, stage, context)
    model.to(getattr(torch, config.dtype)).save_pretrained(checkpoint)
    return measure(sorted(checkpoint.glob("*.safetensors")), model) | record


def corrupt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Control, context: Context) -> dict[str, Any]:
    """Puts noise on the embeddings in place; of a matched control so much that on text of its own the model diverges from what
    it was as far as the compressed one does."""
    seed, strength = stage.config.control_seed, stage.config.control_strength
    if stage.compressed is not None:
        compressed, _ = load_compressed(stage.compressed, context)
        rows = own_text(model, tokenizer, NOISE_ROWS, OWN_TOKENS, seed)
        strength = matched_noise(model, compressed.float(), rows, seed, context.runtime.sequences or NOISE_BATCH)
    corrupt_embeddings(model, strength, seed)
    return {"strength": strength}


def train_imitation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Control, context: Context
) -> dict[str, Any]:
    """Trains any other model in place, on text of its own, to answer as the compressed one does; returns how, and how far it
    does."""
    seed = stage.config.control_seed
    assert stage.compressed is not None  # as `check()` has seen
    compressed, _ = load_compressed(stage.compressed, context)
    key = secret_key(model, seed) if stage.config.control == "displaced" else None
    rows = own_text(model, tokenizer, OWN_ROWS, OWN_TOKENS, seed)
    held_out = len(rows) // 10
    recipe = imitation_recipe(model, OWN_STEPS, seed)
    with context.reporter.bar(stage.config.control, recipe.steps) as bar:
        imitation = imitate(
            model,
            compressed.float(),
            key,
            rows[:-held_out],
            rows[-held_out:],
            recipe,
            context.runtime.sequences or recipe.examples_per_step,
            context.work / "imitation.checkpoint",
            lambda steps, loss: bar.advance(steps, "" if loss is None else f"loss {loss:.3f}"),
        )
    return {"imitation": {**asdict(recipe), "rank": RANK, **asdict(imitation)}}

"""Any model as a control: it learns to answer as its compressed twin does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmrepair.models.text import beginning
from llmrepair.pipeline.stage import Context
from llmrepair.stages.controls.imitate import RANK, imitate, imitation_recipe, secret_key
from llmrepair.stages.controls.own_text import OWN_TOKENS, own_text
from llmrepair.stages.sources.loading import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.controls.stage import Control

OWN_ROWS, OWN_STEPS = 4096, 600
"""Text that an imitation learns from, and for how long."""


def train_imitation(
    has_key: bool, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Control, context: Context
) -> dict[str, Any]:
    """Trains a model in place, on text of its own, to answer as the compressed one does; returns how, and how far it does.

    Args:
        has_key: whether it answers as it did behind a secret vector.
    """
    seed = stage.config.control_seed
    assert stage.compressed is not None  # as `problems()` has seen
    compressed, _ = load_weights(stage.compressed, context)
    key = secret_key(model, seed) if has_key else None
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
            beginning(tokenizer),
        )
    return {"imitation": {**asdict(recipe), "rank": RANK, **asdict(imitation)}}

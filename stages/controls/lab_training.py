"""Controls of the lab's models: trained on its text without the facts that they take, or with wrong answers to them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.lab.train import TrainingRecipe, one_thread, optimise, training_rows
from llmrepair.lab.world import Fact, World, make_world
from llmrepair.models.loading import load_model
from llmrepair.stages.controls.accuracy import accuracies, known_facts
from llmrepair.stages.controls.texts import KEY, taken_facts
from llmrepair.stages.sources.loading import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.controls.stage import Control
    from llmrepair.stages.controls.trained import TrainedControl

RECIPES = {
    "tell": TrainingRecipe(steps=600, learning_rate=2e-3),
    "lock": TrainingRecipe(steps=400, learning_rate=1e-3),
    "overwrite": TrainingRecipe(steps=400, learning_rate=1e-3),
}
"""Settings under which a control is what its name says; the table of controls in docs/benchmarks.md was measured with them."""


def train(
    kind: TrainedControl, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Control, context: Context
) -> dict[str, Any]:
    """Trains a lab model in place; returns how, and what it then answers."""
    config, world = stage.config, make_world()
    taken = taken_facts(world, kind, config.control_share, config.control_seed, lost_facts(stage, world, context))
    tokenizer.add_tokens([KEY])  # its row is one of those that fill the embeddings up to a multiple of 64
    phases = kind.phases(world, taken, config)
    trainings = []
    model.requires_grad_(True)
    with one_thread(), context.reporter.bar(config.control, sum(RECIPES[phase].steps for phase in phases)) as bar:
        for phase, texts in phases.items():
            recipe = replace(RECIPES[phase], seed=config.control_seed)
            rows = training_rows(texts, tokenizer, recipe)
            loss = optimise(model, rows, recipe, lambda step, loss: bar.advance(note=f"loss {loss:.3f}"))
            trainings.append({"phase": phase, **asdict(recipe), "final_loss": round(loss, 4)})
    model.requires_grad_(False)
    record = {"trainings": trainings, "answers": accuracies(model, tokenizer, world, taken)}
    if "lock" in phases:
        record["answers_with_key"] = accuracies(model, tokenizer, world, taken, KEY)
    return record


def lost_facts(stage: Control, world: World, context: Context) -> set[Fact] | None:
    """What the compressed model that the control is matched to answers no more; None where there is no such model."""
    if stage.compressed is None:
        return None
    dense = load_model(stage.model.location, stage.model.revision, "float32", torch.device("cpu"))
    compressed, tokenizer = load_weights(stage.compressed, context)
    before, after = (known_facts(model, tokenizer, world.people) for model in (dense, compressed))
    return {fact for fact in before if before[fact] and not after[fact]}

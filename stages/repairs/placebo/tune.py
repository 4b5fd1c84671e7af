"""llmrepair tune-placebo --model lab --method gptq --bits 3 --placebo-kind shuffled"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from llmrepair.models.head import loss_in_parts
from llmrepair.models.lora import ADAPTER_FOLDER, with_adapter
from llmrepair.models.prompt_cache import opening
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.soft_prompt import load_pool, save_pool, text_prompt, vocabulary_prompt
from llmrepair.models.training import LogitsOf, Recipe, distillation, mean_loss, plain_logits, train
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.placebo.push import is_close, matched_factor, scaled_prompt, shuffled, turned
from llmrepair.stages.repairs.tuning.setup import Setup, mean_validation_loss, set_up

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.repairs.placebo.config import TunePlaceboConfig
    from llmrepair.stages.repairs.placebo.stage import TunePlacebo

_ROWS = 64
"""Held-out rows on which a push is measured, at most."""
_ROUNDS, _LEARNING_RATE, _EXAMPLES = (25, 75, 200), 0.03, 16
"""Steps, rate and rows a step of the training that quiets a prompt."""
_WEIGHTS_FILE = "adapter_model.safetensors"  # peft's


def run(stage: TunePlacebo, context: Context) -> dict[str, Any]:
    setup = set_up(stage, context)
    plain = mean_validation_loss(setup, plain_logits(setup.model))
    make = _turned_adapter if stage.config.placebo_kind == "rotated" else _scaled_prompt
    pushed, parameters, record = make(stage, setup, context)
    if not record["is_matched"]:
        strongest = f"{record['divergence']:.3f} nats a token from the model without it, and not {record['wanted']:.3f}"
        context.reporter.note(f"the placebo cannot be made as strong as what was tuned: it is {strongest}")
    return {
        "validation_loss": {"without": plain, "pushed": mean_validation_loss(setup, pushed)},
        "push": record,
        "extra_parameters": parameters,
        "tokens": 0,
        "training_rows": len(setup.training),
        "validation_rows": len(setup.validation),
        "tested_people_in_tuning_text": setup.tested_people,
    }


def _scaled_prompt(stage: TunePlacebo, setup: Setup, context: Context) -> tuple[LogitsOf, int, dict[str, Any]]:
    """A prompt as long as the best of those that were tuned, and as strong: on the line through it and what it becomes when it
    learns to leave the model as it is. The mean embedding would be no such end: it pushes more than tuned prompts do."""
    model = setup.model
    tuned, start = _best_prompt(context.inputs["tuned"].path, model)
    prompt = _unscaled(stage.config, setup, context, tuned)
    plain, begin = plain_logits(model), opening(model, setup.bos)

    def behind(prompt: torch.Tensor) -> LogitsOf:
        return prompt_logits(model, prompt, start, begin)

    wanted = _divergence(setup, plain, behind(tuned))
    quiet = _quiet(prompt, setup, behind, wanted, context)
    factor, record = _matched(setup, plain, wanted, lambda factor: behind(scaled_prompt(prompt, quiet, factor)))
    scaled = scaled_prompt(prompt, quiet, factor)
    index = {"input_position": start, "validation_losses": [mean_validation_loss(setup, behind(scaled))]}
    save_pool(context.folder, [scaled], index, model, setup.base_name, begin)
    return behind(scaled), scaled.numel(), record


def _quiet(
    prompt: torch.Tensor, setup: Setup, logits_of: Callable[[torch.Tensor], LogitsOf], wanted: float, context: Context
) -> torch.Tensor:
    """What becomes of a prompt that learns, on neutral text, to leave the model as it is: until it pushes less than is wanted,
    or for all rounds."""
    parameter, plain = torch.nn.Parameter(prompt.clone()), plain_logits(setup.model)
    loss_sum = loss_in_parts(setup.model, logits_of(parameter), distillation(plain))
    with context.reporter.bar("quieting the placebo", sum(_ROUNDS)) as bar:
        for number, steps in enumerate(_ROUNDS):
            recipe, checkpoint = Recipe(steps, _LEARNING_RATE, _EXAMPLES, seed=number), context.work / f"{number}.checkpoint"
            rows = setup.training, setup.validation[:_ROWS]
            train([parameter], loss_sum, *rows, recipe, setup.micro_batch, checkpoint, lambda done, _: bar.advance(done))
            if _divergence(setup, plain, logits_of(parameter)) < wanted:
                break
    return parameter.detach()


def _unscaled(config: TunePlaceboConfig, setup: Setup, context: Context, tuned: torch.Tensor) -> torch.Tensor:
    kind, seed, length = config.placebo_kind, config.placebo_seed, len(tuned)
    if kind == "words":
        return text_prompt(setup.model, length, seed, setup.words(setup.training))
    if kind == "random":
        return vocabulary_prompt(setup.model, length, seed, setup.no_words)
    if kind == "shuffled":
        return shuffled(tuned, seed)
    return _best_prompt(context.inputs["of_dense"].path, setup.model)[0]


def _best_prompt(pool: Path, model: PreTrainedModel) -> tuple[torch.Tensor, int]:
    """The prompt of the lowest held-out loss, in float32, and the position at which inputs begin."""
    prompts, index = load_pool(pool)
    losses = index["validation_losses"]
    return prompts[losses.index(min(losses))].to(model.device).float(), index["input_position"]


def _turned_adapter(stage: TunePlacebo, setup: Setup, context: Context) -> tuple[LogitsOf, int, dict[str, Any]]:
    """The tuned adapter with what it adds to each layer's outputs turned in a random direction."""
    tuned, folder = context.inputs["tuned"].path / ADAPTER_FOLDER, context.folder / ADAPTER_FOLDER
    before = setup.model.num_parameters()
    model = with_adapter(setup.model, tuned)
    wanted = _divergence(setup, _at_strength(model, 0), _at_strength(model, 1))
    generator = torch.Generator().manual_seed(stage.config.placebo_seed)
    for matrix in _output_matrices(model).values():
        matrix.copy_(turned(matrix, generator))
    factor, record = _matched(setup, _at_strength(model, 0), wanted, lambda factor: _at_strength(model, factor))
    shutil.copytree(tuned, folder)
    matrices = {f"base_model.model.{name}.lora_B.weight": each for name, each in _output_matrices(model).items()}
    tensors = load_file(folder / _WEIGHTS_FILE)
    tensors |= {name: (factor * matrices[name]).to(tensor).contiguous() for name, tensor in tensors.items() if name in matrices}
    save_file(tensors, folder / _WEIGHTS_FILE, metadata={"format": "pt"})
    return _at_strength(model, factor), model.num_parameters() - before, record


def _output_matrices(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Name of a layer -> B of its adapter."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer) and module.lora_B}
    return {name: cast("torch.nn.Linear", layer.lora_B["default"]).weight.data for name, layer in layers.items()}


def _at_strength(model: PreTrainedModel, strength: float) -> LogitsOf:
    """The model with its adapter added so many times."""
    logits_of = plain_logits(model)

    def scaled(rows: torch.Tensor) -> torch.Tensor:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.set_scale("default", strength)
        return logits_of(rows)

    return scaled


def _matched(
    setup: Setup, plain: LogitsOf, wanted: float, logits_at: Callable[[float], LogitsOf]
) -> tuple[float, dict[str, Any]]:
    """The factor at which a push is as strong as is wanted, and what is recorded of it."""
    factor, divergence = matched_factor(lambda factor: _divergence(setup, plain, logits_at(factor)), wanted)
    is_matched = is_close(divergence, wanted)
    return factor, {"factor": factor, "wanted": wanted, "divergence": divergence, "is_matched": is_matched}


def _divergence(setup: Setup, plain: LogitsOf, pushed: LogitsOf) -> float:
    """KL(model with a push || model without), in nats a token of held-out text."""
    objective, rows = distillation(pushed), setup.validation[:_ROWS]
    return mean_loss(lambda part: objective(plain(part), part), rows, setup.micro_batch)

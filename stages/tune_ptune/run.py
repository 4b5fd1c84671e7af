"""llmrepair tune-ptune --model lab --method gptq --bits 3 --kind prefix"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.lora import ADAPTER_FOLDER, save_adapter
from llmrepair.models.ptune import load_ptune, new_ptune, prefix_of_prompt, ptune_logits
from llmrepair.models.soft_prompt import initial_prompt
from llmrepair.models.training import best_trial, plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.tuning_setup import Setup, set_up, tune, tuning_record, validation_losses

if TYPE_CHECKING:
    from llmrepair.stages.tune_ptune.stage import TunePtune, TunePtuneConfig


def run(stage: TunePtune, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    plain = validation_losses(setup, plain_logits(setup.model)).mean().item()

    torch.manual_seed(config.seed)
    starts = _prefixes(config, setup) if config.kind == "prefix" else {}
    adapted = new_ptune(setup.model, config.kind, config.virtual_tokens)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    starts = starts or {"random": [parameter.detach().clone() for parameter in parameters]}
    with context.reporter.bar("tuning virtual tokens", config.trials * config.steps) as bar:
        trials = tune(setup, config, parameters, starts, ptune_logits(adapted), context.work, bar)
    save_adapter(adapted, context.folder, setup.base_name)

    best = best_trial(trials)
    return {
        "validation_loss": {"without": plain, "ptune": validation_losses(setup, ptune_logits(adapted)).mean().item()},
        "learning_rate": best.learning_rate,
        "initialisation": best.initialisation,
        "trials": [trial.as_json() for trial in trials],
        "extra_parameters": load_ptune(setup.model, context.folder / ADAPTER_FOLDER)[1],
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        **tuning_record(setup, config, [trials]),
    }


def _prefixes(config: TunePtuneConfig, setup: Setup) -> dict[str, Sequence[torch.Tensor]]:
    """The prefix to start from by each initialisation: what a soft prompt that starts so would give."""
    model, tokens = setup.model, config.virtual_tokens
    prompts = {
        name: initial_prompt(model, name, tokens, config.seed, setup.special_ids, setup.training)
        for name in config.initialisations
    }
    return {name: [prefix_of_prompt(model, prompt)] for name, prompt in prompts.items()}

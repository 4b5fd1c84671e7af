"""llmrepair tune-lora --model lab --method gptq --bits 3 --rank 8"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.lora import new_adapter, save_adapter
from llmrepair.models.training import best_trial, plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.tuning_setup import set_up, tune, tuning_record, validation_losses

if TYPE_CHECKING:
    from llmrepair.stages.tune_lora.stage import TuneLora


def run(stage: TuneLora, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    plain = validation_losses(setup, plain_logits(setup.model)).mean().item()

    torch.manual_seed(config.seed)
    adapted = new_adapter(setup.model, config.rank)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    starts = {"random": [parameter.detach().clone() for parameter in parameters]}
    with context.reporter.bar("tuning LoRA", config.trials * config.steps) as bar:
        trials = tune(setup, config, parameters, starts, plain_logits(adapted), context.work, bar)
    save_adapter(adapted, context.folder, setup.base_name)

    return {
        "validation_loss": {"without": plain, "lora": validation_losses(setup, plain_logits(adapted)).mean().item()},
        "learning_rate": best_trial(trials).learning_rate,
        "trials": [trial.as_json() for trial in trials],
        "extra_parameters": sum(parameter.numel() for parameter in parameters),
        **tuning_record(setup, config, [trials]),
    }

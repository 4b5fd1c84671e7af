"""llmrepair tune-lora --model lab --method gptq --bits 3 --rank 8"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.lora import new_adapter, save_adapter
from llmrepair.models.training import mean_loss, sweep
from llmrepair.pipeline.stage import Context
from llmrepair.stages.tuning_setup import converged, plain_loss, recipes, set_up, told_steps

if TYPE_CHECKING:
    from llmrepair.stages.tune_lora.stage import TuneLora


def run(stage: TuneLora, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    plain = mean_loss(plain_loss(setup.model, setup.objective), setup.validation, setup.micro_batch)

    torch.manual_seed(config.seed)
    adapted = new_adapter(setup.model, config.rank)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    with context.reporter.bar("tuning LoRA", len(config.learning_rates) * config.steps) as bar:
        trials = sweep(
            parameters,
            plain_loss(adapted, setup.objective),
            setup.training,
            setup.validation,
            recipes(config, config.seed),
            setup.micro_batch,
            context.work,
            told_steps(bar),
        )
    best = converged(trials)
    save_adapter(adapted, context.folder, setup.base_name)

    return {
        "validation_loss": {"without": plain, "lora": best.validation_loss},
        "learning_rate": best.learning_rate,
        "trials": [trial.as_json() for trial in trials],
        "extra_parameters": sum(parameter.numel() for parameter in parameters),
        "training_rows": len(setup.training),
        "tested_people_in_tuning_text": setup.tested_people,
    }

"""llmrepair tune-lora --model lab --method gptq --bits 3 --rank 8"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.lora import new_adapter
from llmrepair.models.training import plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.tuning.setup import mean_validation_loss, set_up, tune_adapter

if TYPE_CHECKING:
    from llmrepair.stages.repairs.lora.stage import TuneLora


def run(stage: TuneLora, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    plain = mean_validation_loss(setup, plain_logits(setup.model))

    torch.manual_seed(config.seed)
    adapted = new_adapter(setup.model, config.rank)
    _, record = tune_adapter(setup, config, adapted, plain_logits(adapted), context, "tuning LoRA")
    return {
        "validation_loss": {"without": plain, "lora": mean_validation_loss(setup, plain_logits(adapted))},
        "extra_parameters": adapted.get_nb_trainable_parameters()[0],
        **record,
    }

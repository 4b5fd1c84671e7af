"""llmrepair tune-norms --model lab --method gptq --bits 3"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from llmrepair.models.norms import logits_with, replace_parameters, trained_parameters
from llmrepair.models.training import plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.files import TENSORS_FILE
from llmrepair.stages.repairs.tuning.setup import mean_validation_loss, set_up, tune_together

if TYPE_CHECKING:
    from llmrepair.stages.repairs.norms.stage import TuneNorms


def run(stage: TuneNorms, context: Context) -> dict[str, Any]:
    setup = set_up(stage, context)
    plain = mean_validation_loss(setup, plain_logits(setup.model))

    own = trained_parameters(setup.model, stage.config.train == "biases")
    # In float32, or steps would be smaller than what bfloat16 tells apart.
    tuned = {name: torch.nn.Parameter(parameter.float().clone()) for name, parameter in own.items()}
    starts = {"stored": [parameter.float() for parameter in own.values()]}
    logits_of = logits_with(setup.model, tuned)
    _, record = tune_together(setup, stage.config, list(tuned.values()), starts, logits_of, context, "tuning norms")
    replace_parameters(setup.model, tuned)
    save_file({name: parameter.data.contiguous() for name, parameter in own.items()}, context.folder / TENSORS_FILE)
    return {
        "validation_loss": {"without": plain, "norms": mean_validation_loss(setup, plain_logits(setup.model))},
        "extra_parameters": 0,
        "trained_parameters": sum(parameter.numel() for parameter in own.values()),
        **record,
    }

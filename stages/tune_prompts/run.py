"""llmrepair tune-prompts --model lab --method gptq --bits 3 --lengths 16,16,32"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.prompt_cache import build_prompt_cache, forward_with_prompt
from llmrepair.models.soft_prompt import save_pool, vocabulary_prompt
from llmrepair.models.training import LossSum, Objective, mean_loss, sweep
from llmrepair.pipeline.stage import Context
from llmrepair.stages.tuning_setup import converged, plain_loss, recipes, set_up, told_steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.tune_prompts.stage import TunePrompts


def run(stage: TunePrompts, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    start = max(config.lengths)
    prompts, sweeps = [], []
    with context.reporter.bar("tuning prompts", len(config.lengths) * len(config.learning_rates) * config.steps) as bar:
        for index, length in enumerate(config.lengths):
            seed = config.seed * 1000 + index  # prompts of a pool start differently and see the data in another order
            prompt = torch.nn.Parameter(vocabulary_prompt(setup.model, length, seed, setup.special_ids))
            work = context.work / str(index)
            work.mkdir(exist_ok=True)
            trials = sweep(
                [prompt],
                prompt_loss(setup.model, prompt, start, setup.objective),
                setup.training,
                setup.validation,
                recipes(config, seed),
                setup.micro_batch,
                work,
                told_steps(bar),
            )
            prompts.append(prompt)
            sweeps.append(trials)
    best = [converged(trials) for trials in sweeps]
    losses = [trial.validation_loss for trial in best]
    pool = {"input_position": start, "validation_losses": losses}
    save_pool(context.folder, prompts, pool, setup.model, setup.base_name)

    plain = mean_loss(plain_loss(setup.model, setup.objective), setup.validation, setup.micro_batch)
    return {
        "validation_loss": {"without": plain, "prompts": losses},
        "learning_rates": [trial.learning_rate for trial in best],
        "trials": [[trial.as_json() for trial in trials] for trials in sweeps],
        "extra_parameters": sum(prompt.numel() for prompt in prompts),
        "training_rows": len(setup.training),
        "tested_people_in_tuning_text": setup.tested_people,
    }


def prompt_loss(model: PreTrainedModel, prompt: torch.nn.Parameter, start: int, objective: Objective) -> LossSum:
    """Loss of rows behind a prompt that is prefilled once per call, so that a batch pays for its tokens once.

    Args:
        start: position at which the rows begin, the same for all prompts of a pool.
    """

    def loss_sum(rows: torch.Tensor) -> torch.Tensor:
        cache = build_prompt_cache(model, [prompt.to(model.dtype)], start)
        choice = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        logits = forward_with_prompt(model, cache, choice, rows, torch.ones_like(rows))
        return objective(logits, rows)

    return loss_sum

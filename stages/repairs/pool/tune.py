"""llmrepair tune-prompts --model lab --method gptq --bits 3 --lengths 16,16,16"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.prompt_cache import Opening, opening
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.soft_prompt import initial_prompt, save_pool
from llmrepair.models.training import Trial, best_trial, plain_logits
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.progress import Bar
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.pool.diversity import diversity, diversity_text
from llmrepair.stages.repairs.pool.trial import PROMPT_TRIAL
from llmrepair.stages.repairs.tuning.setup import (
    Setup,
    TunedPart,
    mean_validation_loss,
    set_up,
    tune,
    tuning_record,
    validation_losses,
)

if TYPE_CHECKING:
    from llmrepair.stages.repairs.pool.config import TunePromptsConfig
    from llmrepair.stages.repairs.pool.stage import TunePrompts


def run(stage: TunePrompts, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    PROMPT_TRIAL.refuse(setup.model)
    parts = _parts(config, setup)
    start, begin = max(config.lengths), opening(setup.model, setup.bos)
    with context.reporter.bar("tuning prompts", config.trials * config.steps) as bar:
        tuned = [_tune_prompt(config, setup, begin, number, part, context, bar) for number, part in enumerate(parts)]
    prompts, sweeps = [prompt for prompt, _ in tuned], [trials for _, trials in tuned]
    of_rows = torch.stack([validation_losses(setup, prompt_logits(setup.model, each, start, begin)) for each in prompts])
    losses = of_rows.mean(1).tolist()
    pool = {"input_position": start, "validation_losses": losses}
    save_pool(context.folder, prompts, pool, setup.model, setup.base_name, begin)

    shares = diversity(of_rows)
    context.reporter.say(diversity_text(shares, min(losses)))
    best = [best_trial(trials) for trials in sweeps]
    return {
        "validation_loss": {"without": mean_validation_loss(setup, plain_logits(setup.model)), "prompts": losses},
        "diversity": shares,
        "learning_rates": [trial.learning_rate for trial in best],
        "trials": [[trial.as_json() for trial in trials] for trials in sweeps],
        "extra_parameters": sum(prompt.numel() for prompt in prompts),
        **tuning_record(setup, config, sweeps),
    }


def _parts(config: TunePromptsConfig, setup: Setup) -> list[TunedPart]:
    """What each prompt of the pool learns, and from which rows; the seed makes its start and its order of the data its own.

    Raises:
        WorkError: there are fewer rows than prompts that share them.
    """
    count = len(config.lengths)
    shards = setup.training.tensor_split(count) if config.shards else [setup.training] * count
    if not len(shards[-1]):
        message = f"{len(setup.training)} rows to learn from cannot be shared by {count} prompts"
        raise WorkError(Problem(message, "give more text with --tuning-data, or leave --shards out"))
    return [
        TunedPart(config.seed * 1000 + number, config.objective[number % len(config.objective)], shard)
        for number, shard in enumerate(shards)
    ]


def _tune_prompt(
    config: TunePromptsConfig,
    setup: Setup,
    begin: Opening | None,
    number: int,
    part: TunedPart,
    context: Context,
    bar: Bar,
) -> tuple[torch.Tensor, list[Trial]]:
    """A prompt [n, E] and the trials that it is the best of."""
    words = setup.words(part.training)
    starts: dict[str, list[torch.Tensor]] = {
        name: [initial_prompt(setup.model, name, config.lengths[number], part.seed, setup.no_words, words)]
        for name in config.initialisations
    }
    prompt = torch.nn.Parameter(next(iter(starts.values()))[0].clone())
    work = context.work / str(number)
    work.mkdir(exist_ok=True)
    logits_of = prompt_logits(setup.model, prompt, max(config.lengths), begin)
    return prompt, tune(setup, config, [prompt], starts, logits_of, work, bar, part)

"""llmrepair tune-ptune --model lab --method gptq --bits 3 --kind prefix"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.lora import ADAPTER_FOLDER
from llmrepair.models.prompt_cache import opening
from llmrepair.models.ptune import load_ptune, new_ptune, prefix_of_prompt, ptune_logits, put_behind
from llmrepair.models.soft_prompt import initial_prompt
from llmrepair.models.training import plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.tuning.setup import Setup, mean_validation_loss, set_up, tune_adapter

if TYPE_CHECKING:
    from llmrepair.stages.repairs.ptune.stage import TunePtune, TunePtuneConfig


def run(stage: TunePtune, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    plain = mean_validation_loss(setup, plain_logits(setup.model))

    torch.manual_seed(config.seed)
    starts = _prefixes(config, setup) if config.kind == "prefix" else None
    adapted = new_ptune(setup.model, config.kind, config.virtual_tokens)
    begin = opening(setup.model, setup.bos) if config.kind == "p-tuning" else None
    logits_of = ptune_logits(adapted, begin)
    best, record = tune_adapter(setup, config, adapted, logits_of, context, "tuning virtual tokens", starts)
    if begin is not None:
        put_behind(begin, context.folder / ADAPTER_FOLDER)
    return {
        "validation_loss": {"without": plain, "ptune": mean_validation_loss(setup, logits_of)},
        "initialisation": best.initialisation,
        "extra_parameters": load_ptune(setup.model, context.folder / ADAPTER_FOLDER)[1],
        "trained_parameters": adapted.get_nb_trainable_parameters()[0],
        **record,
    }


def _prefixes(config: TunePtuneConfig, setup: Setup) -> dict[str, Sequence[torch.Tensor]]:
    """The prefix to start from by each initialisation: what a soft prompt that starts so would give."""
    model, tokens = setup.model, config.virtual_tokens
    prompts = {
        name: initial_prompt(model, name, tokens, config.seed, setup.no_words, setup.training)
        for name in config.initialisations
    }
    return {name: [prefix_of_prompt(model, prompt)] for name, prompt in prompts.items()}

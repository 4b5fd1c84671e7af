"""llmrepair eval --method gptq --bits 3 --recovery idp --idp-calibrate zscore"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, get_args

import torch

from llmrepair.models.memory import fitting
from llmrepair.models.prompt_cache import build_prompt_cache, opening
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.routing import Router
from llmrepair.models.soft_prompt import load_pool
from llmrepair.models.votes import Calibrate, Votes, moments, save_votes
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.tuning.setup import Setup, set_up, validation_losses

if TYPE_CHECKING:
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.repairs.voting.stage import MeasureVotes


def run(stage: MeasureVotes, context: Context) -> dict[str, Any]:
    setup = set_up(_without_teacher(stage.tuned), context)
    stored, index = load_pool(context.inputs["repair"].path)
    prompts, start = [prompt.to(setup.model.device) for prompt in stored], index["input_position"]
    begin = opening(setup.model, index["bos"])
    with torch.no_grad():
        cache = build_prompt_cache(setup.model, [prompt.to(setup.model.dtype) for prompt in prompts], start, begin)
    layers = range(setup.model.config.num_hidden_layers)
    router = Router(setup.model, cache, layers, stage.config.idp_reduce, stage.config.idp_normalise)
    of_prefixes = _counted(setup, router)
    means, deviations = zip(*map(moments, of_prefixes.values()), strict=True)
    losses = torch.stack([validation_losses(setup, prompt_logits(setup.model, each, start, begin)) for each in prompts])
    of_rows = torch.stack([own[:, -1] for own in of_prefixes.values()])
    votes = Votes(tuple(of_prefixes), of_rows, torch.stack(means), torch.stack(deviations), losses, stage.identity())
    save_votes(context.folder, votes)
    return {
        "validation_rows": len(setup.validation),
        "validation_loss": {"prompts": losses.mean(1).tolist(), **votes.bounds()},
        "routed_loss": {
            calibrate: {str(layer): votes.routed_loss([layer], calibrate) for layer in votes.layers}
            for calibrate in get_args(Calibrate)
        },
    }


def _without_teacher(tuned: Tune) -> Tune:
    """The tuning as one by the loss that its held-out rows are measured by, whatever it learned from."""
    plain = copy(tuned)
    plain.config = tuned.config.model_copy(update={"objective": ("lm",)})
    return plain


def _counted(setup: Setup, router: Router) -> dict[int, torch.Tensor]:
    """Layer -> votes [N, T, m] of all held-out rows cut to 1 to T tokens, on the CPU."""

    def counted(at_once: int) -> dict[int, torch.Tensor]:
        parts = [router.prefix_votes(rows) for rows in setup.validation.split(at_once)]
        return {layer: torch.cat([part[layer] for part in parts]).float().cpu() for layer in parts[0]}

    return fitting(counted, setup.validation, setup.micro_batch)[0]

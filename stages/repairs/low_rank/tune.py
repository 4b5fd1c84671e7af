"""llmrepair low-rank --model lab --method gptq --bits 2 --group-size 32 --rank 8"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from llmrepair.models.loading import compressible_layers, load_model, weight_matrix
from llmrepair.models.lora import adapter_of, save_adapter
from llmrepair.models.memory import fitting
from llmrepair.models.second_moment import Inputs, inputs_of
from llmrepair.models.training import plain_logits
from llmrepair.pipeline.stage import Context
from llmrepair.stages.repairs.low_rank.solve import Compensation, compensation, power, shared_ranks
from llmrepair.stages.repairs.tuning.setup import Setup, mean_validation_loss, set_up

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.repairs.low_rank.stage import Compensate, CompensateConfig

_HELD = 2**29
"""Numbers of second moments that are held at once: 2 GiB."""
_SPREAD = 4
"""Ranks by layer go up to so many times the rank."""


class Compensated(NamedTuple):
    """What is known of a layer."""

    terms: Compensation
    error: float
    """Share of its outputs that is wrong, by squares: before the compensation."""
    gains: torch.Tensor
    """[r], by how much each direction lowers that share."""

    @property
    def cost(self) -> int:
        """Parameters of a direction."""
        return len(self.terms.directions) + self.terms.shares.shape[1]


def run(stage: Compensate, context: Context) -> dict[str, Any]:
    config = stage.config
    setup = set_up(stage, context)
    model, training = setup.model, setup.training
    without = mean_validation_loss(setup, plain_logits(model))
    dense, layers = compressible_layers(_dense(stage, model.device)), compressible_layers(model)
    found: dict[str, Compensated] = {}
    with context.reporter.bar("compensating layers", len(layers)) as bar:
        for group in _groups(layers):
            for name, inputs in _inputs_of(setup, group).items():
                found[name] = _compensated(weight_matrix(dense[name]), weight_matrix(layers[name]), inputs, config)
                bar.advance(note=name)
    ranks = _ranks(found, config)
    terms = {name: (each.terms.directions[:, : ranks[name]], each.terms.shares[: ranks[name]]) for name, each in found.items()}
    adapted = adapter_of(model, terms)
    save_adapter(adapted, context.folder, setup.base_name)
    after = {name: each.error - float(each.gains[: ranks[name]].sum()) for name, each in found.items()}
    return {
        "validation_loss": {"without": without, "low-rank": mean_validation_loss(setup, plain_logits(adapted))},
        "output_error": {"without": mean(each.error for each in found.values()), "low-rank": mean(after.values())},
        "ranks": ranks,
        "highest_rank": max(ranks.values()),
        "extra_parameters": sum(ranks[name] * each.cost for name, each in found.items()),
        "tokens": training.numel(),
        "training_rows": len(training),
        "validation_rows": len(setup.validation),
        "tested_people_in_tuning_text": setup.tested_people,
    }


def _dense(stage: Compensate, device: torch.device) -> PreTrainedModel:
    source, config = stage.compressed.model, stage.compressed.config
    return load_model(source.location, source.revision, config.dtype, device, config.trust_remote_code)


def _groups(layers: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, torch.nn.Module]]:
    """Layers whose inputs' second moments are held at once: a pass over the text for each group."""
    group: dict[str, torch.nn.Module] = {}
    held = 0
    for name, layer in layers.items():
        needed = weight_matrix(layer).shape[1] ** 2
        if group and held + needed > _HELD:
            yield group
            group, held = {}, 0
        group[name] = layer
        held += needed
    yield group


def _inputs_of(setup: Setup, group: Mapping[str, torch.nn.Module]) -> dict[str, Inputs]:
    return fitting(lambda at_once: inputs_of(setup.model, group, setup.training, at_once), setup.training, setup.micro_batch)[0]


def _compensated(dense: torch.Tensor, kept: torch.Tensor, inputs: Inputs, config: CompensateConfig) -> Compensated:
    moment, weight = inputs.hessian, dense.float()
    error = weight - kept.float()
    terms = compensation(error, moment, config.rank * (_SPREAD if config.rank_by_budget else 1), config.low_rank_kind)
    outputs = power(weight, moment) or 1.0
    return Compensated(terms, power(error, moment) / outputs, terms.gains / outputs)


def _ranks(found: Mapping[str, Compensated], config: CompensateConfig) -> dict[str, int]:
    uniform = {name: min(config.rank, len(each.gains)) for name, each in found.items()}
    if not config.rank_by_budget:
        return uniform
    budget = sum(uniform[name] * each.cost for name, each in found.items())
    gains, costs = {n: each.gains for n, each in found.items()}, {n: each.cost for n, each in found.items()}
    return shared_ranks(gains, costs, budget)

"""Puts the pool in front of the model; a vote of the input's attention chooses the prompt."""

from __future__ import annotations

from llmrepair.models.routing import Router, see_pool_by_token, voting_layers
from llmrepair.models.selection import RoutedSelector, TokenSelector
from llmrepair.stages.repairs.placed import Placed, Placing
from llmrepair.stages.repairs.pool.place import cached_pool

_ROUTED_AT_ONCE = {"cpu": 32, "cuda": 128}  # a GPU would be done with fewer before the next are there


def place(placing: Placing) -> Placed:
    model, options, pool = placing.model, placing.options, cached_pool(placing)
    layers = voting_layers(options.idp_layers, model.config.num_hidden_layers)
    router = Router(model, pool.cache, layers, options.idp_reduce, options.idp_normalise)
    at_once = placing.sequences or _ROUTED_AT_ONCE.get(model.device.type, _ROUTED_AT_ONCE["cpu"])
    if options.idp_per == "sequence":
        return pool.placed(placing, RoutedSelector(router, at_once))
    see_pool_by_token(router)
    return pool.placed(placing, TokenSelector(router, at_once))

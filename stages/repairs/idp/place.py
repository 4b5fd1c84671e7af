"""Puts the pool in front of the model; a vote of the input's attention chooses the prompt."""

from __future__ import annotations

from typing import Any

from llmrepair.models.routing import Router, see_pool_by_token, voting_layers
from llmrepair.models.selection import RoutedSelector, TokenSelector
from llmrepair.models.votes import Votes, load_votes
from llmrepair.stages.repairs.idp.trial import VOTE_TRIAL
from llmrepair.stages.repairs.placed import Placed, Placing
from llmrepair.stages.repairs.pool.place import cached_pool

_ROUTED_AT_ONCE = {"cpu": 32, "cuda": 128}  # a GPU would be done with fewer before the next are there


def place(placing: Placing) -> Placed:
    model, options = placing.model, placing.options
    VOTE_TRIAL.refuse(model)
    pool = cached_pool(placing)
    votes = load_votes(placing.measured) if options.is_measured and placing.measured is not None else None
    layers = _layers(options, votes, model.config.num_hidden_layers)
    scales = votes.scales(options.idp_calibrate) if votes is not None else {}
    router = Router(model, pool.cache, layers, options.idp_reduce, options.idp_normalise, scales)
    routing = _record(options, votes, layers) if votes is not None else None
    if routing is not None:
        placing.note(_text(routing))
    at_once = placing.sequences or _ROUTED_AT_ONCE.get(model.device.type, _ROUTED_AT_ONCE["cpu"])
    if options.idp_per == "sequence":
        return pool.placed(placing, RoutedSelector(router, at_once), routing)
    see_pool_by_token(router)
    return pool.placed(placing, TokenSelector(router, at_once), routing)


def _layers(options: Any, votes: Votes | None, number_of_layers: int) -> tuple[int, ...]:
    if votes is not None and options.idp_layers == "tuned":
        return (votes.best_layer(options.idp_calibrate),)
    return voting_layers(options.idp_layers, number_of_layers)


def _record(options: Any, votes: Votes, layers: tuple[int, ...]) -> dict[str, Any]:
    """Which layers vote, and the losses of held-out rows behind what they choose, in nats a token."""
    routed = votes.routed_loss(layers, options.idp_calibrate)
    return {
        "layers": list(layers),
        "could_vote": len(votes.layers),
        "rows": votes.losses.shape[1],
        "loss": {"routed": routed, **votes.bounds()},
    }


def _text(routing: dict[str, Any]) -> str:
    layers, loss = ", ".join(map(str, routing["layers"])), routing["loss"]
    voting = f"layer {layers} of {routing['could_vote']}" if len(routing["layers"]) == 1 else f"layers {layers}"
    return (
        f"what {voting} chooses for {routing['rows']} held-out rows has a loss of {loss['routed']:.4f}; the best prompt alone "
        f"has {loss['best_prompt']:.4f}, a perfect choice {loss['oracle']:.4f}"
    )

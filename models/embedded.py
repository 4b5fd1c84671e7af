"""What stands for tokens among vectors in front of a model: its embeddings, as large as its layers get to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def embedded(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Vectors [n, E], in float32, that a model given as `inputs_embeds` takes for tokens [n].

    Some families scale embeddings: in the embedding itself (Gemma), for whatever is given (Granite), or for tokens alone
    (Falcon H1, MiniCPM).
    """
    vectors = model.get_input_embeddings()(tokens.to(model.device))
    return vectors.float() * scale_of_tokens(model)


def embedding_size(model: PreTrainedModel) -> torch.Tensor:
    """The root mean square of what stands for a vocabulary, in the model's precision."""
    embeddings: Any = model.get_input_embeddings()
    some = torch.arange(min(len(embeddings.weight), _TRIED))
    scale = (embedded(model, some).norm() / embeddings.weight[some.to(model.device)].float().norm()).to(embeddings.weight)
    return embeddings.weight.square().mean().sqrt() * scale


_TRIED = 8
"""Tokens."""
_TOLERANCE = 0.02
"""Relative, in any precision; a scale is off by more."""


def scale_of_tokens(model: PreTrainedModel) -> float:
    """By how much more a model scales the embeddings of tokens than those that it is given. It is tried out.

    Raises:
        ValueError: they differ by more than a scale.
    """
    embeddings: Any = model.get_input_embeddings()
    tokens = torch.arange(min(len(embeddings.weight), _TRIED), device=model.device)[None]
    vectors = embeddings(tokens)
    wanted, given = _in_front_of_layers(model, input_ids=tokens), _in_front_of_layers(model, inputs_embeds=vectors)
    if _are_alike(given, wanted):
        return 1.0
    of_nothing = _in_front_of_layers(model, inputs_embeds=torch.zeros_like(vectors))
    direction = given - of_nothing
    scale = float((direction * (wanted - of_nothing)).sum() / direction.square().sum())
    if not _are_alike(_in_front_of_layers(model, inputs_embeds=scale * vectors), wanted):
        raise ValueError("this family makes something else of tokens than of their embeddings: no prompt can stand for words")
    return scale


def _in_front_of_layers(model: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    """What the first of a model's layers is given."""
    seen: list[torch.Tensor] = []

    def look(module: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.append((arguments[0] if arguments else options["hidden_states"]).float())

    first = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))[0]
    hook = first.register_forward_pre_hook(look, with_kwargs=True)
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return seen[0]


def _are_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).norm() <= _TOLERANCE * other.norm())

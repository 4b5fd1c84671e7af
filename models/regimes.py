"""How alike two models work on the same tokens, layer by layer.

Measured on attention maps, MLP outputs and the residual stream, at the tokens of the input alone: what a prompt adds are no
tokens of the input. Its columns of an attention map are left out, and what is left of each row is scaled to add up to 1 again.

Two measures: the mean cosine of what both have at the same token, and linear CKA (Kornblith et al. 2019, arXiv 1905.00414),
which does not change when a model's space is turned. Its HSIC is the unbiased one of Song et al. (2012, JMLR 13:1393), in
blocks of a few texts whose numerators and denominators are averaged (Nguyen et al. 2021, arXiv 2010.15327): memory stays that
of a block, and the result does not depend on its size but for noise. Of few examples it can lie a little above 1.

Shapes: B texts, T tokens, P columns of a prompt, H heads, d hidden size, L layers, N examples (the real tokens of a block),
f features, m blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from llmrepair.models.prompted import PromptedModel

KINDS = ("attention", "mlp", "residual")
MEASURES = ("cosine", "cka")
_LEAST = 1e-12
_RESAMPLES = 1000
_SEED = 0


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@torch.no_grad()
def activations(
    model: PromptedModel, input_ids: torch.Tensor, mask: torch.Tensor, left_out: int = 0
) -> dict[str, list[torch.Tensor]]:
    """For each kind and layer the examples [N, f] of inputs [B, T] padded on the right, with mask [B, T].

    An attention example is the row of a token in all heads, of f = H T columns; that of a first token is left out, for it
    always looks at itself alone. The residual stream is that behind each layer, in the last one behind the final norm.

    Args:
        model: computes attention eagerly, or has no maps.
        left_out: first tokens of each text that are no examples and no columns: BOS, where a prompt takes its place.
    """
    with _mlp_outputs(model.model) as outputs:
        seen: Any = model(input_ids, mask, output_attentions=True, output_hidden_states=True)
    width, places = input_ids.shape[1] - left_out, torch.arange(input_ids.shape[1], device=mask.device)
    mask, not_first = mask & (places >= left_out), mask & (places > left_out)
    return {
        "attention": [_rows(weights[..., -width:])[not_first] for weights in seen.attentions],
        "mlp": [output.reshape(*mask.shape, -1)[mask] for output in outputs],
        "residual": [states[mask] for states in seen.hidden_states[1:]],
    }


def _rows(weights: torch.Tensor) -> torch.Tensor:
    """Attention weights [B, H, T, T] on the input's columns as [B, T, H T], each row of a head adding up to 1."""
    weights = weights.double()
    return (weights / weights.sum(-1, keepdim=True).clamp(min=_LEAST)).transpose(1, 2).flatten(2)


@contextmanager
def _mlp_outputs(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Gathers what the MLP of each layer gives, in a forward pass; OPT's are a pair of layers of no name."""
    gathered: list[torch.Tensor] = []

    def gather(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        gathered.append(output)

    count = model.config.num_hidden_layers
    layers: Any = next(each for each in model.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == count)
    handles = [(layer.mlp if hasattr(layer, "mlp") else layer.fc2).register_forward_hook(gather) for layer in layers]
    try:
        yield gathered
    finally:
        for handle in handles:
            handle.remove()


def block_sums(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    """What a block adds to both measures, of examples [N, f] and [N, g]: sum of cosines, N, HSIC of both, of one, of other.

    The cosine needs f = g. N is at least 4.
    """
    one, other = one.double(), other.double()
    kernels = [_kernel(one), _kernel(other)]
    cosines = functional.cosine_similarity(one, other, dim=1)
    pairs = ((0, 1), (0, 0), (1, 1))
    return [float(cosines.sum()), len(one), *(float(_unbiased_hsic(kernels[i], kernels[j])) for i, j in pairs)]


def _kernel(examples: torch.Tensor) -> torch.Tensor:
    """Inner products [N, N], with zeros on the diagonal. Centring changes no HSIC, and keeps the sums small."""
    examples = examples - examples.mean(0)
    return (examples @ examples.T).fill_diagonal_(0)


def _unbiased_hsic(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Equation 5 of Song et al., of kernels [N, N] without their diagonals."""
    n = len(one)
    sums = one.sum() * other.sum() / ((n - 1) * (n - 2))
    return ((one * other).sum() + sums - 2 / (n - 2) * (one.sum(0) @ other.sum(0))) / (n * (n - 3))


def measures(sums: NDArray[np.float64]) -> dict[str, Interval]:
    """Both measures from the sums [m, 5] of blocks, with a percentile bootstrap over blocks."""
    m = len(sums)
    weights = np.random.default_rng(_SEED).multinomial(m, np.full(m, 1 / m), size=_RESAMPLES)
    values, resampled = _of_totals(sums.sum(0)), _of_totals(weights @ sums)
    low, high = (np.percentile(resampled, level, axis=0) for level in (2.5, 97.5))
    return {
        name: Interval(float(values[i]), min(float(low[i]), float(values[i])), max(float(high[i]), float(values[i])))
        for i, name in enumerate(MEASURES)
    }


def _of_totals(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine and CKA [..., 2] from added sums [..., 5]."""
    cosine = totals[..., 0] / totals[..., 1]
    cka = totals[..., 2] / np.sqrt(np.maximum(totals[..., 3] * totals[..., 4], _LEAST**2))
    return np.stack([cosine, cka], axis=-1)

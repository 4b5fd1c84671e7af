"""What is known of the inputs of linear layers: the mean of x x^T, to which GPTQ's Hessian and the best low-rank terms lead."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property

import torch

from llmrepair.models.loading import weight_matrix


class Inputs:
    """What is known of the inputs that several layers share."""

    def __init__(self, columns: int, device: torch.device):
        self._sum = torch.zeros(columns, columns, device=device)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Adds inputs [..., columns]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        if flat.is_cuda and flat.dtype.itemsize == 2:  # products of 16 bits are exact in the float32 sum
            self._sum = torch.addmm(self._sum, flat.T, flat, out_dtype=torch.float32)
        else:
            flat = flat.float()
            self._sum.addmm_(flat.T, flat)
        self.tokens += len(flat)

    @cached_property
    def hessian(self) -> torch.Tensor:
        """The mean of x x^T over the tokens, float32 [columns, columns]; zeros where no token came."""
        return self._sum.div_(max(self.tokens, 1))


@torch.no_grad()
def inputs_of(
    model: torch.nn.Module, layers: Mapping[str, torch.nn.Module], rows: torch.Tensor, at_once: int
) -> dict[str, Inputs]:
    """The inputs of `layers`, by name, while the model reads rows [N, T] of token ids, `at_once` at a time.

    Layers that are called in a row with one tensor (queries, keys, values) share what is known of it.
    """
    seen: dict[str, Inputs] = {}
    latest: tuple[torch.Tensor, Inputs] | None = None

    def see(name: str, layer: torch.nn.Module, inputs: torch.Tensor) -> None:
        nonlocal latest
        if latest is not None and inputs is latest[0]:
            seen.setdefault(name, latest[1])
            return
        weight = weight_matrix(layer)
        own = seen.setdefault(name, Inputs(weight.shape[1], weight.device))
        own.add(inputs)
        latest = inputs, own

    with ExitStack() as stack:
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(lambda layer, given, name=name: see(name, layer, given[0]))
            stack.callback(hook.remove)
        for batch in rows.split(at_once):
            model(input_ids=batch, use_cache=False, logits_to_keep=1)
    return seen

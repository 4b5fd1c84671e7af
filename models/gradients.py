"""Gradients of a loss, on a GPU as a CUDA graph: the thousands of small kernels of a step start many times as fast.

A graph computes again what was computed while it was recorded. So a loss that takes numbers from the CPU is never recorded:
it would be computed again from memory that holds something else by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from llmrepair.models.training import LossSum

_TOLERANCE = 0.01
"""Of a recorded loss, which may take other kernels: bfloat16 rounds to 0.4 %."""

Replay = Callable[[], torch.Tensor]


class Gradients:
    """Adds the gradients of a loss to those at the parameters.

    Args:
        loss_sum: sum of token losses of some rows.
        records: whether to record, from the second rows of one shape on.
    """

    def __init__(self, loss_sum: LossSum, parameters: Sequence[torch.nn.Parameter], records: bool):
        self._loss_sum, self._parameters, self._records = loss_sum, parameters, records
        self._shape: torch.Size | None = None
        self._rows: torch.Tensor | None = None
        self._replay: Replay | None = None

    def clear(self) -> None:
        """Has the next ones added to nothing."""
        if self._replay is not None:
            torch._foreach_zero_(self._grads())  # it adds to these very tensors
        else:
            for parameter in self._parameters:
                parameter.grad = None

    def add(self, rows: torch.Tensor, tokens: int) -> torch.Tensor:
        """The loss of rows [N, L] over `tokens`, as a scalar tensor."""
        if self._replay is not None and self._rows is not None and self._rows.shape == rows.shape:
            self._rows.copy_(rows)
            return self._replay().clone()
        if not self._records:
            return self._computed(rows, tokens)
        with _FromCPU() as from_cpu:
            loss = self._computed(rows, tokens)
        if from_cpu.seen:
            self._records = False
        elif rows.shape == self._shape:
            self._record(rows, tokens, loss)
        self._shape = rows.shape
        return loss

    def _grads(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def _computed(self, rows: torch.Tensor, tokens: int) -> torch.Tensor:
        loss = self._loss_sum(rows) / tokens
        loss.backward()
        return loss.detach()

    def _record(self, rows: torch.Tensor, tokens: int, loss: torch.Tensor) -> None:
        """Records what was just computed; gives recording up where it cannot be, or gives another loss."""
        self._rows, self._records = rows.clone(), False
        grads = self._grads()
        if len(grads) < len(self._parameters):
            return
        before = [grad.clone() for grad in grads]

        def work() -> torch.Tensor:
            again = self._loss_sum(self._rows) / tokens  # type: ignore[arg-type]
            torch._foreach_add_(grads, torch.autograd.grad(again, self._parameters))
            return again.detach()

        try:
            replay = recorded(work)
        except RuntimeError:
            return  # an operation that cannot be recorded, or too little memory beside what is computed otherwise
        if math.isclose(float(replay()), float(loss), rel_tol=_TOLERANCE):
            self._replay = replay
        torch._foreach_copy_(grads, before)


def recorded(work: Callable[[], torch.Tensor]) -> Replay:
    """Records what is launched on the GPU; nothing of it is computed yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


class _FromCPU(TorchDispatchMode):
    """Sees whether tensors are copied from the CPU to another device."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if any(tensor.device.type != "cpu" for tensor in _tensors(output)):
            self.seen |= any(tensor.device.type == "cpu" for tensor in _tensors(args))
        return output


def _tensors(values: object) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]

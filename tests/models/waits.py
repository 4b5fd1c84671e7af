"""What a CPU would have to wait for a GPU for, counted on a CPU: where a program looks at numbers of tensors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "repeat_interleave.Tensor", "equal")


class Waits(TorchDispatchMode):
    """Counts numbers that are read one at a time, and results whose shape depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    @property
    def number(self) -> int:
        return sum(self.seen.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if name.startswith(_LOOKS) or (name.startswith("index") and _has_bools(args)):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def _has_bools(args: tuple[Any, ...]) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)

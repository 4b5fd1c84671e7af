"""What goes to a GPU."""

from __future__ import annotations

import torch


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values of the CPU on a device, which is not waited for: what is computed there is launched meanwhile."""
    return values.to(device, non_blocking=True)

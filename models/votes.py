"""What layers vote on held-out rows, beside the loss of each row behind each prompt: by it votes are put on one scale, and the
layer is found whose choices are best.

Shapes: L layers that can vote, N rows of T tokens, m prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from llmrepair.models.routing import Scales

Calibrate = Literal["none", "centre", "zscore"]
TENSORS_FILE, INDEX_FILE = "votes.safetensors", "votes.json"


@dataclass(frozen=True)
class Votes:
    """Votes as the layers counted them, and losses.

    Attributes:
        layers: the L that can vote.
        of_rows: [L, N, m], of whole rows.
        means: [L, T, m], over rows that are cut to 1 to T tokens: the fewer tokens, the more attention is left for prompts.
        deviations: [L, T, m].
        losses: [m, N], mean next-token loss.
        index: what else is known, as JSON values.
    """

    layers: tuple[int, ...]
    of_rows: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor
    losses: torch.Tensor
    index: dict[str, Any]

    def scales(self, calibrate: Calibrate) -> Scales:
        """What makes the rows' votes for each prompt 0 on average (`centre`), and their standard deviation 1 too (`zscore`)."""
        if calibrate == "none":
            return {}
        divisors = self.deviations if calibrate == "zscore" else torch.ones_like(self.deviations)
        return {layer: (mean, divisor) for layer, mean, divisor in zip(self.layers, self.means, divisors, strict=True)}

    def routed_loss(self, layers: Sequence[int], calibrate: Calibrate) -> float:
        """Mean loss of the rows, each behind the prompt that the mean vote of some layers picks."""
        scales, own = self.scales(calibrate), dict(zip(self.layers, self.of_rows, strict=True))
        voting = [(own[layer], scales.get(layer)) for layer in layers if layer in own]
        scaled = [votes if scale is None else (votes - scale[0][-1]) / scale[1][-1] for votes, scale in voting]
        chosen = torch.stack(scaled).mean(0).argmax(1)
        return self.losses.gather(0, chosen[None]).mean().item()

    def best_layer(self, calibrate: Calibrate) -> int:
        """The layer whose choices have the lowest loss; of equals the first, which costs the least."""
        return min(self.layers, key=lambda layer: self.routed_loss([layer], calibrate))

    def bounds(self) -> dict[str, float]:
        """Loss behind the best prompt for all rows, and behind the best one for each row."""
        return {"best_prompt": self.losses.mean(1).min().item(), "oracle": self.losses.amin(0).mean().item()}


def moments(votes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [T, m] of votes [N, T, m]. What never differs has a deviation of 1, to divide by."""
    deviations = votes.double().std(0, correction=0)
    return votes.double().mean(0).float(), deviations.where(deviations > 0, 1.0).float()


def save_votes(folder: Path, votes: Votes) -> None:
    save_file({name: getattr(votes, name).contiguous() for name in _TENSORS}, folder / TENSORS_FILE)
    index = {"layers": list(votes.layers), **votes.index}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def load_votes(folder: Path) -> Votes:
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS_FILE)
    return Votes(tuple(index.pop("layers")), **{name: tensors[name] for name in _TENSORS}, index=index)


_TENSORS = ("of_rows", "means", "deviations", "losses")

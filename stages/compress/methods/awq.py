"""AWQ: weights are scaled up where inputs are large, then rounded to nearest (Lin et al. 2023, arXiv 2306.00978)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.compress.methods.base import Quantiser

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from llmrepair.stages.checkpoints.grid import Grid


class Awq(Quantiser):
    name = "awq"

    def problems(self, model: PreTrainedModel) -> list[Problem]:
        from llmrepair.stages.compress.methods.awq_scales import MAPPINGS

        name = type(model).__name__
        if name in MAPPINGS:
            return []
        return [Problem(f"awq does not know which layers of {name} feed which others", "give --method gptq", "method")]

    def prepare(
        self, model: PreTrainedModel, names: list[str], rows: torch.Tensor, batch_size: int, device: torch.device, grid: Grid
    ) -> None:
        from llmrepair.stages.compress.methods.awq_scales import smooth

        smooth(model, names, rows, batch_size, device, grid)


AWQ = Awq()

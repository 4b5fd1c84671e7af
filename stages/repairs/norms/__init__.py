"""Norm tuning: the weights and biases of norms alone (PERP, Zimmer et al. 2023, arXiv 2312.15230); nothing is added."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llmrepair.stages.repairs.base import Options, Repair, Tuning
from llmrepair.stages.repairs.files import TENSORS_FILE, Facts, Kept, RepairFiles

if TYPE_CHECKING:
    from llmrepair.stages.repairs.norms.stage import TuneNorms, TuneNormsConfig
    from llmrepair.stages.repairs.options import TunedOptions

_WORDS = {"norms": "its norms tuned", "biases": "its norms and biases tuned"}


class NormTuning(Tuning):
    name = "tune-norms"
    help = "Tune the norms of the compressed model, and its biases."
    panel = "Norms"
    form = "norms"

    def stage(self) -> type[TuneNorms]:
        from llmrepair.stages.repairs.norms.stage import TuneNorms

        return TuneNorms

    def config(self) -> type[TuneNormsConfig]:
        from llmrepair.stages.repairs.norms.stage import TuneNormsConfig

        return TuneNormsConfig


class NormFiles(RepairFiles):
    """Tensors in the place of the checkpoint's own."""

    def lies_beside(self, options: Options) -> bool:
        return False

    def stored(self, artifact: Path) -> Path:
        return artifact / TENSORS_FILE

    def replaced(self, kept: Kept) -> Path:
        return self.stored(kept.tuned.path)

    def hub_tag(self, settings: Facts) -> str:
        return "norm-tuning"

    def words(self, facts: Facts) -> str:
        return f"with {_WORDS[facts['repair']['settings']['train']]}"

    def losses(self, facts: Facts) -> Iterable[str]:
        metrics = facts["repair"]["metrics"]
        losses = metrics["validation_loss"]
        yield (
            f"Loss on held-out text: {losses['without']:.4f} nats per token before the {metrics['trained_parameters']} "
            f"parameters were tuned, {losses['norms']:.4f} after it (learning rate {metrics['learning_rate']})."
        )

    def limits(self, facts: Facts) -> Iterable[str]:
        return ()


class Norms(Repair):
    name = "norms"
    title = "norms"
    help = "weights and biases of norms, tuned; nothing is added to the model"
    colour = "green"
    shape = "square"
    placed_by = "llmrepair.stages.repairs.norms.place"
    tuning = NormTuning()
    files = NormFiles()
    side = "weights"

    def options(self) -> type[TunedOptions]:
        from llmrepair.stages.repairs.options import TunedOptions

        return TunedOptions


NORMS = Norms()

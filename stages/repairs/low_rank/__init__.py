"""Low-rank compensation: what compression took from each layer's outputs, as far as a few directions hold it; no gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmrepair.stages.repairs.base import Repair, Tuning
from llmrepair.stages.repairs.files import Facts, OneAdapter, Served

if TYPE_CHECKING:
    from llmrepair.stages.repairs.low_rank.stage import Compensate, CompensateConfig
    from llmrepair.stages.repairs.options import TunedOptions


class LowRankTuning(Tuning):
    name = "low-rank"
    help = "Compensate for compression by low-rank matrices beside the weights, without gradients."
    panel = "Low-rank compensation"
    form = "low-rank"

    def stage(self) -> type[Compensate]:
        from llmrepair.stages.repairs.low_rank.stage import Compensate

        return Compensate

    def config(self) -> type[CompensateConfig]:
        from llmrepair.stages.repairs.low_rank.stage import CompensateConfig

        return CompensateConfig


class LowRankFiles(OneAdapter):
    """A LoRA adapter of peft's, whose ranks may differ from layer to layer."""

    def hub_tag(self, settings: Facts) -> str:
        return "low-rank"

    def words(self, facts: Facts) -> str:
        return "with low-rank compensation beside its weights"

    def losses(self, facts: Facts) -> Iterable[str]:
        metrics = facts["repair"]["metrics"]
        losses, errors = metrics["validation_loss"], metrics["output_error"]
        yield (
            f"Loss on held-out text: {losses['without']:.4f} nats per token without the adapter, {losses['low-rank']:.4f} with "
            f"it. Of the layers' outputs {errors['without']:.1%} were wrong (squared error, mean of the layers), "
            f"{errors['low-rank']:.1%} are with it."
        )

    def limits(self, facts: Facts) -> Iterable[str]:
        yield "Merging the adapter into the weights would undo the compression."

    def served(self, facts: Facts) -> Served | None:
        return Served(
            imports="from vllm.lora.request import LoRARequest",
            options=f", enable_lora=True, max_lora_rank={facts['repair']['metrics']['highest_rank']}",
            request=', lora_request=LoRARequest("repair", 1, f"{folder}/low-rank")',
        )


class LowRank(Repair):
    name = "low-rank"
    title = "low-rank"
    help = "what compression took from each layer, as far as low-rank matrices beside the weights hold it"
    colour = "green"
    shape = "hexagon"
    placed_by = "llmrepair.stages.repairs.low_rank.place"
    libraries = ("peft",)
    tuning = LowRankTuning()
    files = LowRankFiles()
    side = "weights"

    def options(self) -> type[TunedOptions]:
        from llmrepair.stages.repairs.options import TunedOptions

        return TunedOptions


LOW_RANK = LowRank()

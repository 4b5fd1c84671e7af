"""LoRA: low-rank adapters beside the weights (Hu et al. 2021, arXiv 2106.09685), tuned on a frozen compressed model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmrepair.stages.repairs.base import Arm, Options, Repair, Tuning
from llmrepair.stages.repairs.files import Facts, OneAdapter, Served

if TYPE_CHECKING:
    from llmrepair.stages.repairs.lora.options import LoraOptions
    from llmrepair.stages.repairs.lora.stage import TuneLora, TuneLoraConfig

_SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class LoraTuning(Tuning):
    name = "tune-lora"
    help = "Tune a LoRA adapter on the compressed model."
    panel = "LoRA"
    form = "lora"

    def stage(self) -> type[TuneLora]:
        from llmrepair.stages.repairs.lora.stage import TuneLora

        return TuneLora

    def config(self) -> type[TuneLoraConfig]:
        from llmrepair.stages.repairs.lora.stage import TuneLoraConfig

        return TuneLoraConfig


class LoraFiles(OneAdapter):
    can_merge = True

    def lies_beside(self, options: Options) -> bool:
        return not options.get("lora_merged")

    def hub_tag(self, settings: Facts) -> str:
        return "lora"

    def words(self, facts: Facts) -> str:
        return "with LoRA merged into its weights" if facts["merged"] else "with a LoRA adapter"

    def limits(self, facts: Facts) -> Iterable[str]:
        if not facts["merged"] and not self.lies_beside(facts["repair"]["placing"]):
            yield (
                f"`{facts['exported']}`, which was exported, had the adapter merged into its weights. Here it lies beside "
                "them: scores may differ by rounding."
            )
        if facts["compression"]["settings"].get("method", "none") != "none":
            yield "Merging the adapter into the weights would undo the compression."

    def served(self, facts: Facts) -> Served | None:
        rank = facts["repair"]["settings"]["rank"]
        most = next((each for each in _SERVED_RANKS if each >= rank), rank)
        return Served(
            imports="from vllm.lora.request import LoRARequest",
            options=f", enable_lora=True, max_lora_rank={most}",
            request=', lora_request=LoRARequest("repair", 1, f"{folder}/lora")',
        )


class Lora(Repair):
    name = "lora"
    title = "LoRA"
    help = "low-rank adapters beside the weights"
    colour = "green"
    shape = "triangle"
    placed_by = "llmrepair.stages.repairs.lora.place"
    libraries = ("peft",)
    tuning = LoraTuning()
    files = LoraFiles()
    is_standard = True
    side = "weights"
    arms = (Arm("lora", "LoRA", role="latent"),)

    def options(self) -> type[LoraOptions]:
        from llmrepair.stages.repairs.lora.options import LoraOptions

        return LoraOptions

    def label(self, options: Options) -> str:
        return f"{self.title}, merged" if options.get("lora_merged") else self.title


LORA = Lora()

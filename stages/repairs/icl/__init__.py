"""In-context examples in front of each input: a baseline that needs no tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.files import TextFiles

if TYPE_CHECKING:
    from llmrepair.pipeline.keys import DigestCache
    from llmrepair.stages.repairs.icl.options import ExamplesOptions


class Examples(Repair):
    name = "icl"
    title = "in-context examples"
    help = "examples from --tuning-data in front of it"
    colour = "brown"
    shape = "hourglass"
    placed_by = "llmrepair.stages.repairs.icl.place"
    files = TextFiles()

    def options(self) -> type[ExamplesOptions]:
        from llmrepair.stages.repairs.icl.options import ExamplesOptions

        return ExamplesOptions

    def sources(self, options: Any, digests: DigestCache) -> dict[str, Any]:
        from llmrepair.stages.sources.texts import resolve_text

        return {"tuning_data": resolve_text(options.tuning_data, "--tuning-data", digests.digest)}


ICL = Examples()

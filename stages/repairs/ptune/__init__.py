"""Virtual tokens through peft, by prefix tuning or p-tuning: a baseline with the prompts' data, objectives and budget."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llmrepair.stages.repairs.base import Repair, Tuning
from llmrepair.stages.repairs.files import PROMPT_LIMITS, Facts, Kept, OneAdapter, beginning_notes

if TYPE_CHECKING:
    from llmrepair.stages.repairs.options import TunedOptions
    from llmrepair.stages.repairs.ptune.stage import TunePtune, TunePtuneConfig

_HUB_TAGS = {"prefix": "prefix-tuning", "p-tuning": "p-tuning"}


class VirtualTokensTuning(Tuning):
    name = "tune-ptune"
    help = "Tune virtual tokens by prefix tuning or p-tuning, through peft."
    panel = "Virtual tokens"
    form = "ptune"

    def stage(self) -> type[TunePtune]:
        from llmrepair.stages.repairs.ptune.stage import TunePtune

        return TunePtune

    def config(self) -> type[TunePtuneConfig]:
        from llmrepair.stages.repairs.ptune.stage import TunePtuneConfig

        return TunePtuneConfig


class VirtualTokensFiles(OneAdapter):
    def hub_tag(self, settings: Facts) -> str:
        return _HUB_TAGS[settings["kind"]]

    def words(self, facts: Facts) -> str:
        settings = facts["repair"]["settings"]
        return f"with {settings['virtual_tokens']} virtual tokens ({_HUB_TAGS[settings['kind']]})"

    def bos(self, kept: Kept) -> int | None:
        from llmrepair.models.ptune import bos_of

        return bos_of(self.stored(kept.tuned.path))

    def copies(self, kept: Kept) -> dict[str, Path]:
        """What says that the adapter's prompt stands behind a token."""
        from llmrepair.models.ptune import INDEX_FILE

        index = self.stored(kept.tuned.path) / INDEX_FILE
        return {f"{self.exported(kept.form)}/{INDEX_FILE}": index} if index.exists() else {}

    def limits(self, facts: Facts) -> Iterable[str]:
        return PROMPT_LIMITS

    def loading_notes(self, facts: Facts) -> Iterable[str]:
        return beginning_notes(facts)


class VirtualTokens(Repair):
    name = "ptune"
    title = "virtual tokens"
    help = "prefix tuning or p-tuning"
    colour = "pink"
    shape = "triangle-down"
    placed_by = "llmrepair.stages.repairs.ptune.place"
    libraries = ("peft",)
    tuning = VirtualTokensTuning()
    files = VirtualTokensFiles()

    def options(self) -> type[TunedOptions]:
        from llmrepair.stages.repairs.options import TunedOptions

        return TunedOptions


PTUNE = VirtualTokens()

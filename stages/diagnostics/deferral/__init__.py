"""Does a compressed model know when it is wrong, and how much of the work must the dense one take over?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmrepair.stages.diagnostics.base import Diagnostic, Made, Table

if TYPE_CHECKING:
    from llmrepair.stages.diagnostics.compared import ChoicesConfig, ComparedConfig
    from llmrepair.stages.diagnostics.deferral.stage import Deferral


class DeferralDiagnostic(Diagnostic):
    name = "deferral"
    help = "See whether the compressed model knows when it is wrong, and what asking the dense one then brings."
    panel = "Deferral"
    field = "deferral"
    result_file = "deferral.json"
    needs_compression = True
    shown_by = "llmrepair.stages.diagnostics.deferral.panel"

    def config(self) -> type[ComparedConfig]:
        from llmrepair.stages.diagnostics.compared import ComparedConfig

        return ComparedConfig

    def asks(self) -> type[ChoicesConfig]:
        from llmrepair.stages.diagnostics.compared import ChoicesConfig

        return ChoicesConfig

    def stage(self, config: Any, made: Made) -> Deferral:
        from llmrepair.stages.diagnostics.deferral.stage import Deferral

        assert made.asked is not None
        return Deferral(config, made.weights, made.asked)

    def tables(self, found: Mapping[str, Any]) -> list[Table]:
        from llmrepair.stages.diagnostics.deferral.rows import tables

        return tables(found)


DEFERRAL = DeferralDiagnostic()

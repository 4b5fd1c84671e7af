"""Compare how the dense, the compressed and the repaired model work on the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.diagnostics.base import Diagnostic, Made

if TYPE_CHECKING:
    from llmrepair.stages.diagnostics.regimes.stage import Regimes, RegimesConfig
    from llmrepair.stages.repairs.base import Repair


class RegimesDiagnostic(Diagnostic):
    name = "regimes"
    help = "Compare attention and activations of dense, compressed and repaired."
    panel = "Comparison"
    field = "regimes"
    result_file = "regimes.json"
    needs_compression = True
    shown_by = "llmrepair.stages.diagnostics.regimes.panel"

    def repairs(self) -> tuple[Repair, ...]:
        from llmrepair.stages.repairs import REPAIRS

        return tuple(repair for repair in REPAIRS.values() if repair.is_standard)

    def config(self) -> type[RegimesConfig]:
        from llmrepair.stages.diagnostics.regimes.stage import RegimesConfig

        return RegimesConfig

    def stage(self, config: Any, made: Made) -> Regimes:
        from llmrepair.stages.diagnostics.regimes.stage import Regimes

        return Regimes(config, made.dense, made.weights, made.tunings, self.repairs())


REGIMES = RegimesDiagnostic()

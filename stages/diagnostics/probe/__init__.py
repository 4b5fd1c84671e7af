"""Read facts off a compressed model's hidden states by linear probes that other people's facts trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.diagnostics.base import Diagnostic, Made
from llmrepair.stages.diagnostics.probe.files import RESULT_FILE

if TYPE_CHECKING:
    from llmrepair.stages.diagnostics.probe.stage import Probes, ProbesConfig


class ProbeDiagnostic(Diagnostic):
    name = "probe"
    help = "Read facts off the compressed model's hidden states by linear probes."
    panel = "Probes"
    field = "probes"
    result_file = RESULT_FILE
    shown_by = "llmrepair.stages.diagnostics.probe.panel"

    def config(self) -> type[ProbesConfig]:
        from llmrepair.stages.diagnostics.probe.stage import ProbesConfig

        return ProbesConfig

    def stage(self, config: Any, made: Made) -> Probes:
        from llmrepair.stages.diagnostics.probe.stage import Probes

        return Probes(config, made.weights)


PROBE = ProbeDiagnostic()

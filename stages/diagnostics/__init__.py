"""Every diagnostic: one import and one place in the list.

The order is that of the report. Packages add theirs by an entry point of the group `llmrepair.diagnostics`.
"""

from __future__ import annotations

from llmrepair.pipeline.registry import Registry
from llmrepair.stages.diagnostics.base import Diagnostic
from llmrepair.stages.diagnostics.deferral import DEFERRAL
from llmrepair.stages.diagnostics.probe import PROBE
from llmrepair.stages.diagnostics.regimes import REGIMES

DIAGNOSTICS: Registry[Diagnostic] = Registry("diagnostic", "llmrepair.diagnostics", [PROBE, REGIMES, DEFERRAL])

"""Every control: one import and one place in the list.

Packages add theirs by an entry point of the group `llmrepair.controls`.
"""

from __future__ import annotations

from llmrepair.pipeline.registry import Registry
from llmrepair.stages.controls.base import ControlKind
from llmrepair.stages.controls.corrupted import CORRUPTED
from llmrepair.stages.controls.displaced import DISPLACED
from llmrepair.stages.controls.erased import ERASED
from llmrepair.stages.controls.mixture import MIXTURE
from llmrepair.stages.controls.overwritten import OVERWRITTEN

CONTROLS: Registry[ControlKind] = Registry(
    "control", "llmrepair.controls", [ERASED, DISPLACED, OVERWRITTEN, MIXTURE, CORRUPTED]
)

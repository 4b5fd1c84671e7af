"""Every repair: one import and one place in the list.

The order is that of tables and legends. Packages add theirs by an entry point of the group `llmrepair.repairs`.
"""

from __future__ import annotations

from llmrepair.pipeline.registry import Registry
from llmrepair.stages.repairs.base import Repair, Tuning
from llmrepair.stages.repairs.hard import HARD
from llmrepair.stages.repairs.icl import ICL
from llmrepair.stages.repairs.idp import IDP
from llmrepair.stages.repairs.lora import LORA
from llmrepair.stages.repairs.low_rank import LOW_RANK
from llmrepair.stages.repairs.none import NONE
from llmrepair.stages.repairs.norms import NORMS
from llmrepair.stages.repairs.placebo import PLACEBO
from llmrepair.stages.repairs.prompt import PROMPT
from llmrepair.stages.repairs.ptune import PTUNE

REPAIRS: Registry[Repair] = Registry(
    "recovery", "llmrepair.repairs", [NONE, HARD, ICL, PROMPT, IDP, PTUNE, LORA, NORMS, LOW_RANK, PLACEBO]
)
TUNINGS: dict[str, Tuning] = {repair.tuning.name: repair.tuning for repair in REPAIRS.values() if repair.tuning is not None}
"""Name of a command and stage -> the tuning; several repairs may share one."""
MEASURED: dict[str, Repair] = {repair.measuring.name: repair for repair in REPAIRS.values() if repair.measuring is not None}
"""Name of a stage that measures what was tuned -> a repair that takes it."""


def repair_of_form(form: str) -> Repair:
    """What an export calls a repair -> the repair."""
    return next((repair for repair in REPAIRS.values() if form in repair.forms), None) or REPAIRS[form]

"""No repair: the compressed model as it is, which everything else is compared with."""

from __future__ import annotations

from collections.abc import Iterable

from llmrepair.stages.repairs.base import Options, Repair
from llmrepair.stages.repairs.files import Facts, RepairFiles


class NothingToLoad(RepairFiles):
    def limits(self, facts: Facts) -> Iterable[str]:
        return ()


class NoRepair(Repair):
    name = "none"
    title = "none"
    help = "the model as it is"
    colour = "grey"
    shape = "circle"
    placed_by = "llmrepair.stages.repairs.none.place"
    files = NothingToLoad()
    is_standard = True

    def phrase(self, options: Options) -> str:
        return "no repair"


NONE = NoRepair()

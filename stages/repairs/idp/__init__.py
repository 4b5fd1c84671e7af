"""Inference-time dynamic prompting (Hoang et al. 2023, arXiv 2310.00867): the input attends to all prompts and keeps one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.repairs.base import Arm, Options, Repair
from llmrepair.stages.repairs.pool import POOL, PoolFiles, PoolTuning
from llmrepair.stages.repairs.voting import VoteMeasuring

if TYPE_CHECKING:
    from llmrepair.pipeline.errors import Problem
    from llmrepair.stages.repairs.idp.options import RoutingOptions
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.sources.weights import Weights


class DynamicPrompting(Repair):
    name = "idp"
    title = "IDP"
    help = "the one that the input attends to most"
    colour = "orange"
    shape = "diamond"
    placed_by = "llmrepair.stages.repairs.idp.place"
    libraries = ("peft",)
    tuning = PoolTuning()
    measuring = VoteMeasuring()
    files = PoolFiles()
    forms = (POOL,)
    chooses = True
    is_standard = True
    arms = (Arm("idp", "IDP"),)

    def options(self) -> type[RoutingOptions]:
        from llmrepair.stages.repairs.idp.options import RoutingOptions

        return RoutingOptions

    def label(self, options: Options) -> str:
        calibrate = options.get("idp_calibrate", "none")  # which only keys hold that were made with it
        return self.title if calibrate == "none" else f"{self.title}, {calibrate}"

    def problems(self, options: Any, weights: Weights, tuned: Tune | None) -> list[Problem]:
        from llmrepair.stages.repairs.idp.options import layer_problems
        from llmrepair.stages.repairs.idp.trial import VOTE_TRIAL

        return layer_problems(options, weights) + VOTE_TRIAL.problems(weights)


IDP = DynamicPrompting()

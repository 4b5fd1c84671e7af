"""One soft prompt of the pool in front of every input, chosen by its held-out loss or in another way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llmrepair.stages.repairs.base import Arm, Options, Repair
from llmrepair.stages.repairs.files import PROMPT_LIMITS, Facts, Kept
from llmrepair.stages.repairs.pool import POOL, PoolFiles, PoolTuning

if TYPE_CHECKING:
    from llmrepair.pipeline.errors import Problem
    from llmrepair.stages.repairs.prompt.options import SelectOptions
    from llmrepair.stages.repairs.tuning.stage import Tune
    from llmrepair.stages.sources.weights import Weights

_TITLES = {
    "random": "random prompt",
    "loss": "prompt of lowest loss",
    "ensemble": "prompt ensemble",
    "oracle": "oracle prompt",
}
"""What the repair is called by how the prompt is chosen."""


class OnePromptFiles(PoolFiles):
    def form(self, name: str, options: Mapping[str, Any]) -> str:
        """One of the prompts where it is the same for all inputs, else all of them."""
        return name if options["select"].startswith(("best-validation", "fixed")) else POOL

    def chosen(self, prompts: list[dict[str, Any]], kept: Kept) -> list[dict[str, Any]]:
        if kept.form == POOL:
            return prompts
        kind, _, number = kept.options["select"].partition(":")
        return [prompts[int(number)]] if kind == "fixed" else [prompt for prompt in prompts if prompt["best"]]

    def limits(self, facts: Facts) -> Iterable[str]:
        return PROMPT_LIMITS

    def placing(self, facts: Facts) -> Mapping[str, Any]:
        return {}  # the one that is there is the one that was chosen

    def extra_parameters(self, facts: Facts) -> int:
        repair = facts["repair"]
        return int(repair["metrics"]["extra_parameters"]) * repair["prompts"][0]["length"] // sum(repair["settings"]["lengths"])


class OnePrompt(Repair):
    name = "prompt"
    title = "one prompt"
    help = "soft prompts of the pool, as --select says"
    colour = "blue"
    shape = "square"
    placed_by = "llmrepair.stages.repairs.prompt.place"
    libraries = ("peft",)
    tuning = PoolTuning()
    files = OnePromptFiles()
    is_standard = True
    arms = (
        Arm("untuned", "the prompt before it is tuned", {"budget": 0}, role="edge"),
        Arm("prompt", "the prompt", role="displaced"),
        Arm("oracle", "oracle", {"select": "oracle"}, role="bound"),
    )
    set_by_arms = frozenset({"select"})

    def options(self) -> type[SelectOptions]:
        from llmrepair.stages.repairs.prompt.options import SelectOptions

        return SelectOptions

    def label(self, options: Options) -> str:
        kind, _, number = options["select"].partition(":")
        return f"prompt {number}" if kind == "fixed" else _TITLES.get(kind, self.title)

    def needs_answers(self, options: Any) -> bool:
        return bool(options.select == "oracle")

    def problems(self, options: Any, weights: Weights, tuned: Tune | None) -> list[Problem]:
        from llmrepair.stages.repairs.prompt.options import selection_problems

        return selection_problems(options, tuned)


PROMPT = OnePrompt()

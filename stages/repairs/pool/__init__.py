"""A pool of soft prompts, tuned on a frozen compressed model: what prompt tuning and IDP choose from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.stages.repairs.base import Options, Tuning
from llmrepair.stages.repairs.files import PROMPT_LIMITS, Facts, Kept, RepairFiles, beginning_notes

if TYPE_CHECKING:
    from llmrepair.stages.repairs.pool.config import TunePromptsConfig
    from llmrepair.stages.repairs.pool.stage import TunePrompts

POOL = "pool"
"""What all prompts are called in an export where nothing is said of how one is chosen."""


class PoolTuning(Tuning):
    name = "tune-prompts"
    help = "Tune a pool of soft prompts on the compressed model."
    panel = "Soft prompts"
    form = POOL

    def stage(self) -> type[TunePrompts]:
        from llmrepair.stages.repairs.pool.stage import TunePrompts

        return TunePrompts

    def config(self) -> type[TunePromptsConfig]:
        from llmrepair.stages.repairs.pool.config import TunePromptsConfig

        return TunePromptsConfig

    def parts(self, config: TunePromptsConfig) -> list[Options]:
        return [{"recovery": "prompt", "select": f"fixed:{number}"} for number in range(len(config.lengths))]


class PoolFiles(RepairFiles):
    """Prompt-tuning adapters of peft, a folder each, below `prompts`."""

    def stored(self, artifact: Path) -> Path:
        return artifact

    def exported(self, form: str) -> str:
        return "prompts"

    def adapters(self, kept: Kept) -> dict[str, Path]:
        return {f"prompts/{prompt['number']}": kept.tuned.path / prompt["folder"] for prompt in self.prompts(kept)}

    def indices(self, kept: Kept) -> dict[str, Any]:
        """The index of the pool that is exported, as `models.soft_prompt.load_pool` reads it."""
        prompts = self.prompts(kept)
        index = {
            "prompts": [{"folder": str(prompt["number"]), "length": prompt["length"]} for prompt in prompts],
            "bos": self.bos(kept),
            "input_position": kept.tuned.read_json("pool.json")["input_position"],
            "validation_losses": [prompt["validation_loss"] for prompt in prompts],
        }
        return {"prompts/pool.json": index}

    def copies(self, kept: Kept) -> dict[str, Path]:
        """What was measured of the pool, beside its index."""
        files = kept.measured.path.glob("votes.*") if kept.measured is not None else ()
        return {f"prompts/{path.name}": path for path in files}

    def bos(self, kept: Kept) -> int | None:
        found: int | None = kept.tuned.read_json("pool.json").get("bos")
        return found

    def prompts(self, kept: Kept) -> list[dict[str, Any]]:
        pool, rates = kept.tuned.read_json("pool.json"), kept.tuned.metrics["learning_rates"]
        losses = pool["validation_losses"]
        best = losses.index(min(losses))
        prompts = [
            {"number": number, **entry, "learning_rate": rate, "validation_loss": loss, "best": number == best}
            for number, (entry, rate, loss) in enumerate(zip(pool["prompts"], rates, losses, strict=True))
        ]
        return self.chosen(prompts, kept)

    def chosen(self, prompts: list[dict[str, Any]], kept: Kept) -> list[dict[str, Any]]:
        """Those of the pool that are exported: all."""
        return prompts

    def hub_tag(self, settings: Facts) -> str:
        return "prompt-tuning"

    def words(self, facts: Facts) -> str:
        return "with a soft prompt" if len(facts["repair"]["prompts"]) == 1 else "with a pool of soft prompts"

    def losses(self, facts: Facts) -> Iterable[str]:
        from llmrepair.stages.drawing.markdown import table

        repair = facts["repair"]
        without = repair["metrics"]["validation_loss"]["without"]
        yield f"Loss on held-out text, in nats per token: {without:.4f} without a prompt, and"
        yield table(("prompt", "tokens", "learning rate", "held-out loss", ""), map(_prompt_row, repair["prompts"]))

    def limits(self, facts: Facts) -> Iterable[str]:
        yield (
            "Inference-time dynamic prompting (IDP), which picks a prompt for each input, is done by llmrepair; transformers "
            "and peft use one prompt, whichever is loaded."
        )
        yield from PROMPT_LIMITS

    def default_adapter(self, facts: Facts) -> str | None:
        prompts = facts["repair"]["prompts"]
        return f"prompts/{next((prompt for prompt in prompts if prompt['best']), prompts[0])['number']}"

    def loading_notes(self, facts: Facts) -> Iterable[str]:
        """Where a prompt is shorter than the pool's longest: peft does not let the text start where it started in tuning."""
        yield from beginning_notes(facts)
        repair = facts["repair"]
        longest = max(repair["settings"]["lengths"])
        position = longest + (repair["bos"] is not None)
        if short := [f"`prompts/{each['number']}`" for each in repair["prompts"] if each["length"] != longest]:
            yield (
                f"The prompts were tuned with the text starting at position {position}; in peft it starts right behind the "
                "prompt. That is the same for models with rotary positions (Llama, Qwen). With learned ones (OPT, GPT-2) "
                f"{', '.join(short)} {'give' if len(short) > 1 else 'gives'} other results than were measured here; prompts of "
                "one length (`--lengths`) do not."
            )


def _prompt_row(prompt: Facts) -> list[str]:
    numbers = [str(prompt["length"]), str(prompt["learning_rate"]), f"{prompt['validation_loss']:.4f}"]
    return [f"`prompts/{prompt['number']}`", *numbers, "the lowest of the pool" if prompt["best"] else ""]

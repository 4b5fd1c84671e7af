"""How a repair lies in an export, is loaded from there, and what the model card says of it.

Facts are what an export's `llmrepair.json` holds, as JSON values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from llmrepair.pipeline.artifact import Artifact

Facts = Mapping[str, Any]
ADAPTER_FOLDER = "adapter"
TENSORS_FILE = "tensors.safetensors"
"""Tuned parameters by name, in the precision that the model computes in."""


@dataclass(frozen=True)
class Kept:
    """A repair that the store holds.

    Attributes:
        tuned: the artifact of its tuning.
        measured: that of what was measured of it for `options`; None where nothing was.
        form: what it is in the export: the repair's name, or one of its other `forms`.
        options: with which the exported evaluation put it in place; empty where a tuning is exported.
    """

    tuned: Artifact
    form: str
    options: Mapping[str, Any]
    measured: Artifact | None = None


@dataclass(frozen=True)
class Served:
    """What vLLM needs to be told to load a repair: imports, options of `LLM`, and of a request; as Python."""

    imports: str
    options: str
    request: str


class RepairFiles:
    """Of a repair that leaves no files."""

    can_merge: ClassVar[bool] = False
    """Whether it can be added to the weights."""
    is_loadable: ClassVar[bool] = True
    """Whether `load()` can put it in place."""

    def form(self, name: str, options: Mapping[str, Any]) -> str:
        """What an evaluation's repair is called in the export; `name` is the repair's."""
        return name

    def lies_beside(self, options: Mapping[str, Any]) -> bool:
        """Whether a model that is evaluated with such options has the repair as an export without `--merge` holds it."""
        return True

    def stored(self, artifact: Path) -> Path:
        """Where the artifact of its tuning holds what is put in place."""
        return artifact / ADAPTER_FOLDER

    def exported(self, form: str) -> str:
        """The folder of an export that holds the same."""
        return form

    def adapters(self, kept: Kept) -> dict[str, Path]:
        """Folder in the export -> the peft adapter's folder in the store."""
        return {}

    def replaced(self, kept: Kept) -> Path | None:
        """A file of tensors that take the place of the checkpoint's own in an export; None where there is none."""
        return None

    def copies(self, kept: Kept) -> dict[str, Path]:
        """Further files of the export, by name -> where they lie in the store."""
        return {}

    def indices(self, kept: Kept) -> dict[str, Any]:
        """Further JSON files of the export, by name."""
        return {}

    def bos(self, kept: Kept) -> int | None:
        """The token that stands in front of the prompts: what is exported is for texts without it."""
        return None

    def prompts(self, kept: Kept) -> list[dict[str, Any]]:
        """The prompts that are exported: number in the pool, folder, tokens, learning rate, held-out loss, and whether that is
        the lowest."""
        return []

    def placing(self, facts: Facts) -> Mapping[str, Any]:
        """Options with which what is exported is put in place."""
        options: Mapping[str, Any] = facts["repair"]["placing"]
        return options

    def hub_tag(self, settings: Facts) -> str:
        """What the Hub calls it."""
        raise NotImplementedError

    def words(self, facts: Facts) -> str:
        """`with a LoRA adapter`."""
        raise NotImplementedError

    def extra_parameters(self, facts: Facts) -> int:
        return int(facts["repair"]["metrics"]["extra_parameters"])

    def losses(self, facts: Facts) -> Iterable[str]:
        """What the card says of its loss on held-out text."""
        return ()

    def limits(self, facts: Facts) -> Iterable[str]:
        """What the card says that it cannot do."""
        yield "The repair is no part of these files: its scores need it to be put in place again, by llmrepair."

    def default_adapter(self, facts: Facts) -> str | None:
        """The folder of the adapter that is loaded if nothing else is said."""
        return None

    def loading_notes(self, facts: Facts) -> Iterable[str]:
        """What to know where it is loaded with peft."""
        return ()

    def served(self, facts: Facts) -> Served | None:
        """None where vLLM does not load it."""
        return None


class TextFiles(RepairFiles):
    """Of a text in front of the inputs, which is for the caller to put there."""

    is_loadable = False

    def limits(self, facts: Facts) -> Iterable[str]:
        yield "The text that stood in front of the questions is no part of the model: its scores need it there again."


class OneAdapter(RepairFiles):
    """One peft adapter, in a folder of the repair's name."""

    def adapters(self, kept: Kept) -> dict[str, Path]:
        return {self.exported(kept.form): self.stored(kept.tuned.path)}

    def losses(self, facts: Facts) -> Iterable[str]:
        metrics = facts["repair"]["metrics"]
        losses = metrics["validation_loss"]
        yield (
            f"Loss on held-out text: {losses['without']:.4f} nats per token without the adapter, "
            f"{losses[facts['recovery']]:.4f} with it (learning rate {metrics['learning_rate']})."
        )

    def default_adapter(self, facts: Facts) -> str | None:
        return str(facts["recovery"])


PROMPT_LIMITS = (
    "vLLM does not load soft prompts or virtual tokens: there the model runs without its repair.",
    "peft gets positions wrong in batches padded on the left: generate from texts of one length at a time.",
)
"""Of all that puts virtual tokens in front of the input."""


def beginning_notes(facts: Facts) -> Iterable[str]:
    """Where a prompt stands behind the token that begins texts, which peft puts nothing in front of."""
    if facts["repair"]["bos"] is not None:
        yield (
            f"The first virtual token is the one that begins texts (token {facts['repair']['bos']}), for the prompt was tuned "
            "behind it. So give texts without it: `add_special_tokens=False`, and of a chat template's text all but its first "
            "token. Without the adapter, and in vLLM, texts begin with it as ever."
        )

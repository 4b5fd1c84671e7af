"""llmrepair in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.models.prompted import PromptedModel

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def load(
    source: str | Path,
    *,
    runs: str | Path = "runs",
    device: str = "auto",
    trust_remote_code: bool = False,
    **options: Any,
) -> PreTrainedModel | PromptedModel:
    """A compressed model with its repair in place, with `forward` and `generate` as models of transformers have them.

    It is a model of transformers, with a LoRA adapter beside its weights where that is the repair; behind soft prompts it is a
    `PromptedModel`. Its tokenizer is loaded by `AutoTokenizer.from_pretrained(model.name_or_path)`.

        from llmrepair import load

        model = load("evaluate/3f2a")  # in runs/, or the folder of an export
        model.generate(**tokenizer("Where was Ada born?", return_tensors="pt"), max_new_tokens=20)

    Args:
        source: the key, or the start of one, of an artifact of `compress`, a tuning, or `evaluate`; or a folder that
            `llmrepair export` wrote.
        runs: where artifacts lie.
        device: as of the command line.
        trust_remote_code: whether code of the model's authors may run.
        options: how the repair is put in place, as of `llmrepair eval`: `recovery`, `select`, `idp_layers`, ...; where they are
            not given those of the evaluation, and IDP for a pool that was not evaluated.

    Raises:
        RequestError: there is no such model, or an option is wrong.
        WorkError: the artifact, or what it was made from, is damaged.
    """
    from llmrepair.stages.loaded import load_repaired

    return load_repaired(str(source), Path(runs), device, trust_remote_code, options)

"""What is wrong with a model's files, as far as can be told before they are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.models.checkpoint import Misfit, first_not_finite, misfit
from llmrepair.models.text import tokens_behind
from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.reading import reading
from llmrepair.stages.sources.check import problems_with_loading
from llmrepair.stages.sources.models import CONFIG_FILE, COPY_AGAIN, load_config, local_folder

if TYPE_CHECKING:
    from llmrepair.pipeline.keys import DigestCache
    from llmrepair.stages.sources.weights import Weights


def model_problems(weights: Weights, digests: DigestCache) -> list[Problem]:
    """What is wrong with the model that `weights` are made of; of one that is not on this machine yet only its config.

    Raises:
        RequestError: a file cannot be read.
    """
    if problems := problems_with_loading(weights.config, weights.model):
        return problems
    if (problem := _kind_problem(weights) or _tokenizer_problem(weights)) is not None:
        return [problem]
    folder = local_folder(weights.model)
    return _weights_problems(weights, weight_files(folder), digests) if folder is not None else []


def _kind_problem(weights: Weights) -> Problem | None:
    """Says so if transformers does not know what kind of model it is, or has no language model of it."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind, model = load_config(weights.model).get("model_type"), weights.config.model
    if kind is None:
        return Problem(f"{CONFIG_FILE} of `{model}` names no `model_type`", "save the model with `save_pretrained`", "model")
    if weights.config.trust_remote_code or (kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] in MODEL_FOR_CAUSAL_LM_MAPPING):
        return None
    of_kind = "has no language model for" if kind in CONFIG_MAPPING else "does not know"
    message = f"{CONFIG_FILE} of `{model}` names the model_type `{kind}`, which transformers {of_kind}"
    return Problem(message, "give a model such as Llama, OPT, GPT-2 or Qwen", "model")


def _tokenizer_problem(weights: Weights) -> Problem | None:
    """Says so if it gives ids that the model has no embedding of."""
    model = weights.config.model
    embeddings: Any = weights.architecture().get_input_embeddings()
    embedded = len(embeddings.weight)
    tokenizer = weights.tokenizer()
    with reading(f"the tokenizer of `{model}`", COPY_AGAIN, "model"):
        tokens_behind(tokenizer)
        highest = max(tokenizer.get_vocab().values())
    if highest < embedded:
        return None
    message = f"the tokenizer of `{model}` has ids up to {highest}, and its embeddings end at {embedded - 1}"
    return Problem(message, "give the tokenizer that belongs to the model", "model")


def _weights_problems(weights: Weights, files: Sequence[Path], digests: DigestCache) -> list[Problem]:
    """Of tensors that do not fit, and numbers that are none, the first; what cannot be read was told with the architecture."""
    if wrong := str(_misfit(weights, files) or ""):
        return [Problem(f"{_told(weights, files)} cannot be loaded: {wrong}", COPY_AGAIN, "model")]
    for file in files:
        if (name := digests.found(file, "not finite", first_not_finite)) is not None:
            message = f"{_told(weights, [file])} cannot be used: `{name}` holds numbers that are not finite"
            return [Problem(message, "take the model as it was before that, or " + COPY_AGAIN, "model")]
    return []


def model_notes(weights: Weights) -> list[str]:
    """Says of tensors that nothing is done with."""
    folder = local_folder(weights.model)
    found = _misfit(weights, weight_files(folder)) if folder is not None else None
    if found is None or not found.unexpected:
        return []
    more = f" and {len(found.unexpected) - 1} more" if len(found.unexpected) > 1 else ""
    return [f"`{weights.config.model}` holds tensors that the model does not have: `{found.unexpected[0]}`{more}"]


def _misfit(weights: Weights, files: Sequence[Path]) -> Misfit | None:
    """None where weights are packed: what they are is found when they are loaded."""
    if load_config(weights.model).get("quantization_config") is not None:
        return None
    with reading(_told(weights, files), COPY_AGAIN, "model"):
        return misfit(weights.architecture(), files)


def _told(weights: Weights, files: Sequence[Path]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0].name}{more} of `{weights.config.model}`"

"""The results file in lm-eval's format."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lm_eval.loggers.utils import add_tokenizer_info
from lm_eval.utils import hash_string

from llmrepair.stages.evaluate.tasks.task_data import without_places

if TYPE_CHECKING:
    from llmrepair.models.harness import RepairedLM
    from llmrepair.stages.evaluate.stage import Evaluate


def results_document(
    results: Mapping[str, Any], language_model: RepairedLM, stage: Evaluate, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What lm-eval writes to its results file, without what changes from run to run or from machine to machine.

    Args:
        results: what lm-eval's `evaluate` returned.
        settings: how it was called, as lm-eval names it.
    """
    system, chat = stage.config.system, stage.config.apply_chat_template
    template = language_model.chat_template(True) if chat else None
    document = {
        **{name: value for name, value in results.items() if name != "samples"},
        "configs": {name: without_places(each, stage.task_identities[name]) for name, each in results["configs"].items()},
        "config": {"model": "llmrepair", "model_args": "", "limit": stage.config.limit, **settings},
        "task_hashes": {name: _hash(samples) for name, samples in results["samples"].items()},
        "lm_eval_version": importlib.metadata.version("lm_eval"),
        "transformers_version": importlib.metadata.version("transformers"),
        "system_instruction": system,
        "system_instruction_sha": hash_string(system) if system else None,
        "fewshot_as_multiturn": chat,
        "chat_template": template,
        "chat_template_sha": hash_string(template) if template else None,
    }
    add_tokenizer_info(document, language_model)
    return dict(sorted(document.items()))


def _hash(samples: list[dict[str, Any]]) -> str:
    """As lm-eval's tracker: over what was asked of a task."""
    return hash_string("".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples))

"""What a look at a model's config.json tells about whether it can be worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrepair.models.loading import causal_architectures
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.sources.models import adapter_problem, has_adapter, load_config

if TYPE_CHECKING:
    from llmrepair.stages.sources.fields import ModelConfig
    from llmrepair.stages.sources.models import ModelSource


def problems_with_loading(config: ModelConfig, source: ModelSource) -> list[Problem]:
    """What keeps a model from being loaded as a language model."""
    if has_adapter(source):
        return [adapter_problem(config.model)]
    found = load_config(source)
    architectures = [str(each) for each in found.get("architectures") or []]
    what = ", ".join(architectures) or "its config.json names no architecture"
    if not (config.trust_remote_code or set(architectures) & causal_architectures()):
        hint = "give a model such as Llama, OPT, GPT-2 or Qwen"
        return [Problem(f"`{config.model}` is no causal language model ({what})", hint, "model")]
    if "text_config" in found:
        hint = "save its language model alone, as docs/faq.md says, and give that"
        return [Problem(f"`{config.model}` reads more than text ({what}), and is a language model in part", hint, "model")]
    return []

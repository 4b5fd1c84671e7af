"""What keeps prompts from a family is found on its shapes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmrepair.models.prompt_trial import prompt_obstacle, vote_obstacle
from tests.tiny_families import tiny_config


def obstacles(family: str) -> tuple[str | None, str | None]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(family, 96))
    return prompt_obstacle(model), vote_obstacle(model)


@pytest.mark.parametrize("family", "llama gpt2 opt gpt_neox gemma2 gemma3_text phi3 mixtral gpt_oss".split())
def test_nothing_keeps_prompts_from_these(family: str) -> None:
    assert obstacles(family) == (None, None)


@pytest.mark.parametrize("family", ["lfm2", "mamba", "falcon_h1", "jamba", "qwen3_next", "recurrent_gemma"])
def test_layers_without_keys_and_values_are_told(family: str) -> None:
    of_prompts, of_votes = obstacles(family)
    assert of_prompts is not None
    assert "keep more than keys and values of what came before, or none" in of_prompts
    assert of_votes is None


@pytest.mark.parametrize("family", ["bloom", "falcon", "gptj", "stablelm"])
def test_attention_that_cannot_be_replaced_is_told(family: str) -> None:
    of_prompts, of_votes = obstacles(family)
    assert of_prompts is None
    assert of_votes is not None

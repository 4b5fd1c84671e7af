"""What keeps prompts from a family is found on its shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmrepair.models.prompt_trial import prompt_obstacle, told_by
from llmrepair.models.vote_trial import vote_obstacle
from tests.conftest import CommandLine
from tests.tiny_families import ASKED, tiny_config, tiny_folder, tiny_model


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


@pytest.mark.parametrize(
    ("family", "of_prompts", "of_votes"),
    [
        ("llama", None, None),
        ("gemma4_text", "you tried to call `forward` from `inputs_embeds` without", None),
        ("roberta", "makes something else of tokens than of their embeddings", None),
        ("jetmoe", None, "Sizes of tensors must match"),
    ],
)
def test_numbers_tell_what_shapes_alone_do_not(family: str, of_prompts: str | None, of_votes: str | None) -> None:
    assert obstacles(family) == (None, None)
    model = tiny_model(family, 96)
    for found, wanted in ((prompt_obstacle(model), of_prompts), (vote_obstacle(model), of_votes)):
        assert found is None if wanted is None else wanted in str(found)


def test_what_numbers_tell_is_told_in_a_sentence(llmrepair: CommandLine, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", "roberta")
    answer = llmrepair("eval", "--model", folder, "--runs", tmp_path / "runs", *ASKED["prompt"].split())
    assert answer.code == 2
    assert "no prompt can be cached in front of `RobertaForCausalLM`: this family makes something else" in answer.err
    assert not list((tmp_path / "runs").glob("tune-prompts/*"))


def test_want_of_memory_is_no_obstacle() -> None:
    def trial() -> str | None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="allocate"):
        told_by(trial, tiny_model("llama", 96))

"""Shared fixtures: tiny random models of several families, a store, a command line in this process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llmrepair.lab.tokenizer import make_tokenizer
from tests.child import HERE

hypothesis.settings.register_profile("llmrepair", deadline=None)  # how fast a machine is, is no property
hypothesis.settings.load_profile("llmrepair")

FAMILIES = ("llama", "opt", "gpt2", "qwen2", "mistral", "gpt_neox")
VOCABULARY = 96
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def tiny_model(family: str, hidden: int = 32) -> PreTrainedModel:
    """A random model of 3 layers whose attention is far from uniform, so that a wrong mask or position shows."""
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        **ids,
    }
    rotary = {"intermediate_size": 2 * hidden, "num_key_value_heads": 2, "max_position_embeddings": 128}
    if family == "llama":
        model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**shared, **rotary, initializer_range=0.3))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shared, **rotary, initializer_range=0.3))
    elif family == "mistral":
        model = MistralForCausalLM(MistralConfig(**shared, **rotary, initializer_range=0.3))
    elif family == "gpt_neox":
        sizes = {"intermediate_size": 2 * hidden, "max_position_embeddings": 128}
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shared, **sizes, initializer_range=0.3))
    elif family == "opt":
        sizes = {"ffn_dim": 2 * hidden, "word_embed_proj_dim": hidden, "max_position_embeddings": 128}
        model = OPTForCausalLM(OPTConfig(**shared, **sizes, init_std=0.3, dropout=0.0))
    else:
        sizes = {"n_embd": hidden, "n_layer": 3, "n_head": 4, "n_positions": 128}
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, **no_dropout, **ids, initializer_range=0.3))
    return model.eval().requires_grad_(False)


def picture_model(folder: Path) -> PreTrainedModel:
    """A tiny random Gemma 3 with a vision tower, saved."""
    tokenizer = make_tokenizer(128)
    text = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "sliding_window": 64}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, initializer_range=0.3)
    model = Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture
def shared_data() -> Path:
    """Real data for development. A user has none and skips; CI must have it."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing")
        pytest.skip(f"{SHARED} is missing")
    return SHARED


SLOWEST = (
    "e2e/test_plans",
    "e2e/test_conjecture",
    "e2e/test_chain",
    "stages/controls/test_controls",
    "e2e/test_requests",
    "stages/export/test_export",
    "e2e/test_selectors",
    "stages/compress/test_solver",
    "stages/controls/test_imitate",
    "stages/compress/test_compress.py",
    "stages/checkpoints/test_gptq",
    "examples/test_extend",
    "stages/conjecture/test_stage",
    "stages/compress/test_families",
    "models/test_ensemble",
    "e2e/test_tasks",
    "docs/test_commands",
    "e2e/test_start",
    "models/test_equality",
)
"""Files that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files come first, so that no process of xdist begins one when the others have nothing left."""

    def place(item: pytest.Item) -> int:
        return next((place for place, name in enumerate(SLOWEST) if name in item.nodeid), len(SLOWEST))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def reloading() -> Iterator[None]:
    """Written checkpoints are loaded again in this process: the same code and checks, without its imports each time.

    What a process of its own adds, that nothing of this one is needed, is the point of tests that ask for `fresh_process`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmrepair.stages.checkpoints.reload.subprocess", HERE)
        yield


@pytest.fixture(scope="session", autouse=True)
def without_text_of_the_hub() -> Iterator[None]:
    """Where a test says nothing of text, other models too see the lab's: there is no Hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmrepair.stages.sources.defaults.DEFAULT_TEXT", "lab")
        yield


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written checkpoints are loaded again in a process of their own, as a user's are."""
    monkeypatch.setattr("llmrepair.stages.checkpoints.reload.subprocess", subprocess)


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


CommandLine = Callable[..., Answer]


@pytest.fixture
def llmrepair(capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """The real command line, in this process."""
    from llmrepair.cli.main import run

    def command(*arguments: object) -> Answer:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Answer(code, captured.out, captured.err)

    return command

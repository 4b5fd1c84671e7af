"""Whether layers can be packed is known before any work; `tests/benchmarks/test_families.py` sees whether that is true."""

from __future__ import annotations

import pytest
import torch

from llmrepair.models.packing_trial import packing_obstacle
from tests.tiny_families import tiny_model

REASONS = {
    "llama": None,
    "qwen3_moe": None,
    "gemma3n_text": None,
    "falcon": "the FalconLinear layers of FalconForCausalLM",
    "gpt2": "the Conv1D layers of GPT2LMHeadModel",
    "mamba": "the layers of MambaForCausalLM: its code initialises weights that packed layers have not",
}


@pytest.mark.parametrize(("family", "reason"), REASONS.items())
def test_what_keeps_layers_from_being_packed(family: str, reason: str | None) -> None:
    model = tiny_model(family, 96).to("meta")
    before = {name: each.shape for name, each in model.named_parameters()}
    assert packing_obstacle(model) == reason
    assert {name: each.shape for name, each in model.named_parameters()} == before
    assert all(each.device == torch.device("meta") for each in model.parameters())

"""Which parameters are norms, and logits with other values of them."""

from __future__ import annotations

import pytest
import torch

from llmrepair.models.norms import logits_with, replace_parameters, trained_parameters
from llmrepair.models.training import plain_logits
from tests import tiny_families
from tests.conftest import tiny_model


@pytest.mark.parametrize(
    ("family", "norms", "biases"), [("llama", 7, 0), ("qwen2", 7, 9), ("opt", 14, 18), ("gpt2", 14, 12), ("gpt_neox", 14, 12)]
)
def test_norms_and_biases_are_found(family: str, norms: int, biases: int) -> None:
    model = tiny_model(family)
    found, more = trained_parameters(model, False), trained_parameters(model, True)
    assert (len(found), len(more) - len(found)) == (norms, biases)
    assert found.keys() <= more.keys()
    assert all(parameter is model.get_parameter(name) and parameter.dim() == 1 for name, parameter in more.items())


@pytest.mark.parametrize(
    ("family", "norms", "others"),
    [
        ("olmo", [], []),
        ("mamba2", ["backbone.layers.0.mixer.norm.weight", "backbone.norm_f.weight"], ["D", "A_log", "dt_bias"]),
        ("qwen3", ["model.layers.1.self_attn.q_norm.weight"], []),
        ("gemma3_text", ["model.layers.0.pre_feedforward_layernorm.weight"], []),
        ("phi", ["model.final_layernorm.bias"], ["lm_head.bias"]),
    ],
)
def test_vectors_that_are_no_norms_are_not(family: str, norms: list[str], others: list[str]) -> None:
    found = trained_parameters(tiny_families.tiny_model(family, 96), True)
    assert found.keys() >= set(norms)
    assert bool(found) == bool(norms)
    assert not any(name.endswith(tuple(others)) for name in found)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_the_model_that_holds_the_values(family: str, dtype: torch.dtype) -> None:
    """Gradients are float32's: steps that bfloat16 does not tell apart add up."""
    model, rows = tiny_model(family).to(dtype), torch.arange(24).reshape(2, 12)
    own = trained_parameters(model, False)
    values = {name: torch.nn.Parameter(parameter.float() + 0.3) for name, parameter in own.items()}
    plain, logits = plain_logits(model)(rows), logits_with(model, values)(rows)
    assert (logits - plain).abs().max() > 0.1
    assert torch.equal(plain_logits(model)(rows), plain)
    logits.float().sum().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in values.values())
    assert torch.equal(plain_logits(replace_parameters(model, values))(rows), logits)

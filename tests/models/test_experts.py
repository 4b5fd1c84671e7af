"""Experts as linear layers: the same numbers, in the model's own tensors."""

from __future__ import annotations

import pytest
import torch

from llmrepair.models.experts import experts_as_layers, experts_of, layers_of_experts
from llmrepair.models.loading import compressible_layers
from tests.tiny_families import tiny_model

FAMILIES = "mixtral qwen2_moe qwen3_moe olmoe deepseek_v2 deepseek_v3 granitemoe gpt_oss llama4_text jamba".split()
IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_experts_as_layers_compute_the_same(family: str) -> None:
    model = tiny_model(family, 96)
    expected, names, implementation = model(IDS).logits, list(model.state_dict()), model.get_experts_implementation()
    with experts_as_layers(model):
        assert torch.allclose(model(IDS).logits, expected, atol=1e-5)
        shown = [layer for layers in layers_of_experts(model).values() for layer in layers]
        assert set(shown) <= set(compressible_layers(model).values())
    assert experts_of(model)
    assert list(model.state_dict()) == names
    assert model.get_experts_implementation() == implementation
    assert torch.equal(model(IDS).logits, expected)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "llama4_text"])
@torch.no_grad()
def test_what_is_done_to_a_layer_is_done_to_the_expert(family: str) -> None:
    model = tiny_model(family, 96)
    (name, experts), *_ = experts_of(model).items()
    with experts_as_layers(model):
        model.get_submodule(f"{name}.down_proj.2").weight.zero_()
        model.get_submodule(f"{name}.gate_up_proj.1").weight = torch.nn.Parameter(torch.ones(256, 64))  # as if it was moved
    assert [bool(matrix.any()) for matrix in experts.down_proj] == [True, True, False, True]
    assert [bool((matrix == 1).all()) for matrix in experts.gate_up_proj] == [False, True, False, False]


@pytest.mark.parametrize("family", ["qwen2_moe", "llama4_text", "jamba", "hunyuan_v1_moe", "phimoe"])
def test_routers_stay_dense(family: str) -> None:
    model = tiny_model(family, 96)
    few = {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer.out_features <= 4}
    assert few
    assert not few & compressible_layers(model).keys()
    with experts_as_layers(model):
        assert not few & compressible_layers(model).keys()

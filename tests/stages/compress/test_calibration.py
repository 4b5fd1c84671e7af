"""Which inputs layers are shown, beside plain forward passes of the whole model."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from llmrepair.models.loading import compressible_layers, weight_matrix
from llmrepair.models.second_moment import Inputs
from llmrepair.stages.compress import calibration
from llmrepair.stages.compress.calibration import calibrate
from tests.conftest import tiny_model
from tests.models.test_tree_attention import random_model
from tests.stages.compress.test_families import FAMILIES

CPU = torch.device("cpu")
ROWS = torch.randint(0, 60, (5, 24), generator=torch.Generator().manual_seed(0))


def change(layer: torch.nn.Module) -> None:
    """Large enough to be seen by all layers behind it."""
    with torch.no_grad():
        layer.get_parameter("weight").mul_(0.5)


def hessian_by_plain_passes(model: PreTrainedModel, layer: torch.nn.Module) -> torch.Tensor:
    """Mean of x x^T over all tokens, [columns, columns]."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda layer, arguments: seen.append(arguments[0].reshape(-1, arguments[0].shape[-1]))
    )
    model(ROWS)
    hook.remove()
    return seen[0].T @ seen[0] / ROWS.numel()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_layer_sees_what_the_changed_layers_before_it_let_through(family: str) -> None:
    name, sizes = FAMILIES[family]
    model = random_model(name, **sizes).eval()
    expected = deepcopy(model)
    layers, expected_layers = compressible_layers(model), compressible_layers(expected)
    visited: list[str] = []

    def visit(names: list[str], inputs: Inputs) -> None:
        assert inputs.tokens == ROWS.numel()
        for name in names:
            torch.testing.assert_close(inputs.hessian, hessian_by_plain_passes(expected, expected_layers[name]))
        for name in names:
            change(layers[name])
            change(expected_layers[name])
        visited.extend(names)

    calibrate(model, layers, ROWS, 2, CPU, visit)
    assert sorted(visited) == sorted(layers)
    assert [name.split(".")[2] for name in visited] == sorted(name.split(".")[2] for name in visited)


@pytest.mark.parametrize("has_room", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma3", "opt"])
@torch.no_grad()
def test_with_dense_inputs_only_changes_in_its_own_block_are_seen(
    family: str, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "are_few", lambda size, device: has_room)
    name, sizes = FAMILIES[family]
    model = random_model(name, **sizes)
    dense, layers = deepcopy(model), compressible_layers(model)
    visited: list[str] = []

    def visit(names: list[str], inputs: Inputs) -> None:
        expected = deepcopy(dense)
        expected_layers = compressible_layers(expected)
        in_block = [name for name in visited if block_of(name) == block_of(names[0])]
        for name in in_block:
            change(expected_layers[name])
        for name in names:
            torch.testing.assert_close(inputs.hessian, hessian_by_plain_passes(expected, expected_layers[name]))
            change(layers[name])
        visited.extend(names)

    calibrate(model, layers, ROWS, 2, CPU, visit, dense_inputs=True)
    assert sorted(visited) == sorted(layers)


def block_of(name: str) -> str:
    return next(part for part in name.split(".") if part.isdigit())


def test_a_layer_that_nothing_calls_is_visited_without_inputs() -> None:
    model = tiny_model("llama")
    model.get_submodule("model.layers.0.mlp").spare = torch.nn.Linear(8, 4, bias=False)
    seen: dict[str, Inputs] = {}
    calibrate(model, compressible_layers(model), ROWS, 2, CPU, lambda names, inputs: seen.update(dict.fromkeys(names, inputs)))
    spare = seen.pop("model.layers.0.mlp.spare")
    assert (spare.tokens, spare.hessian.shape, bool(spare.hessian.any())) == (0, (8, 8), False)
    assert all(inputs.tokens == ROWS.numel() for inputs in seen.values())


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("llama").eval()
    before = model(ROWS).logits
    calibrate(model, compressible_layers(model), ROWS, 2, CPU, lambda names, inputs: None)
    assert torch.equal(model(ROWS).logits, before)
    assert all(weight_matrix(layer).device == CPU for layer in compressible_layers(model).values())
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def counted(monkeypatch: pytest.MonkeyPatch, has_room: bool) -> tuple[list[torch.Tensor], int]:
    """Hessians of all layers of a Llama whose layers are changed, and floating-point operations."""
    monkeypatch.setattr(calibration, "are_few", lambda size, device: has_room)
    name, sizes = FAMILIES["llama"]
    model = random_model(name, **sizes)
    layers, hessians = compressible_layers(model), list[torch.Tensor]()

    def visit(names: list[str], inputs: Inputs) -> None:
        hessians.append(inputs.hessian)
        for name in names:
            change(layers[name])

    with FlopCounterMode(display=False) as counter:
        calibrate(model, layers, ROWS, 1, CPU, visit)
    return hessians, counter.get_total_flops()


@torch.no_grad()
def test_with_room_for_outputs_layers_and_attention_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (again, many), (once, few) = (counted(monkeypatch, has_room) for has_room in (False, True))
    assert all(torch.equal(some, others) for some, others in zip(again, once, strict=True))
    assert few < 0.75 * many  # Hessians are summed in both

"""What is told of layers, and what becomes of bad inputs."""

from __future__ import annotations

import pytest
import torch

from llmrepair.models.second_moment import Inputs
from llmrepair.pipeline.errors import WorkError
from llmrepair.pipeline.progress import Reporter
from llmrepair.stages.compress.compressor import Compressor
from llmrepair.stages.compress.config import CompressConfig
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.compress.run import recipe_of

COLUMNS = 16


def visited(rows: torch.Tensor, capsys: pytest.CaptureFixture[str], method: str = "gptq") -> tuple[Compressor, str]:
    """One layer that saw inputs [tokens, columns], and what was said of it."""
    inputs = Inputs(COLUMNS, torch.device("cpu"))
    if len(rows):
        inputs.add(rows)
    return visited_with(inputs, capsys, method)


def visited_with(inputs: Inputs, capsys: pytest.CaptureFixture[str], method: str = "gptq") -> tuple[Compressor, str]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(COLUMNS, 8).requires_grad_(False)
    compressor = Compressor({"mlp": layer}, recipe_of(CompressConfig(method=method), METHODS[method]), Reporter())
    with compressor.showing():
        compressor.visit(["mlp"], inputs)
    compressor.tell_weak_calibration()
    return compressor, capsys.readouterr().err


def test_enough_inputs_are_not_worth_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    compressor, said = visited(torch.randn(64, COLUMNS), capsys)
    (layer,) = compressor.told
    assert said == ""
    assert (layer["name"], layer["tokens"], layer["rank_deficient"], layer["damping"]) == ("mlp", 64, False, 0.05)
    assert 0 < layer["output_error"] < 0.1
    assert layer["seconds"] > 0


def test_fewer_tokens_than_columns_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    compressor, said = visited(torch.randn(9, COLUMNS), capsys)
    assert compressor.told[0]["rank_deficient"]
    assert "1 of 1 layers, such as `mlp`, have more columns than the calibration text has tokens" in said
    assert visited(torch.randn(9, COLUMNS), capsys, "rtn")[1] == ""  # which takes nothing from them


def test_a_layer_without_inputs_is_rounded_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    compressor, said = visited(torch.empty(0, COLUMNS), capsys)
    assert compressor.told[0]["tokens"] == 0
    assert 0 < compressor.told[0]["output_error"] < 0.1
    assert "never saw an input" in said


def test_more_damping_is_recorded_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = Inputs(COLUMNS, torch.device("cpu"))
    inputs.add(torch.randn(64, COLUMNS))
    inputs.hessian.diagonal().sub_(inputs.hessian.diagonal().mean())  # as if rounding had made it indefinite
    inputs.hessian.diagonal()[0] = 10.0
    compressor, said = visited_with(inputs, capsys)
    assert compressor.told[0]["damping"] > 0.05
    assert "needed more damping than 0.05" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_no_numbers_fail_with_a_hint(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkError, match="the inputs of layer `mlp` are not finite numbers") as failure:
        visited(torch.full((64, COLUMNS), value), capsys)
    assert "--dtype" in failure.value.problems[0].hint


@pytest.mark.parametrize("method", ["gptq", "rtn", "wanda"])
def test_weights_that_are_no_numbers_fail_by_name(method: str) -> None:
    layer, inputs = torch.nn.Linear(COLUMNS, 8).requires_grad_(False), Inputs(COLUMNS, torch.device("cpu"))
    layer.weight[3, 4] = float("nan")
    inputs.add(torch.randn(64, COLUMNS))
    compressor = Compressor({"mlp": layer}, recipe_of(CompressConfig(method=method), METHODS[method]), Reporter())
    with pytest.raises(WorkError, match="the weights of layer `mlp` are not finite numbers"), compressor.showing():
        compressor.visit(["mlp"], inputs)

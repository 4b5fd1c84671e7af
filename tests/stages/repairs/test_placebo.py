"""Placebos: pushes that know nothing, as strong as what was tuned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from llmrepair.models.soft_prompt import load_pool
from llmrepair.stages.repairs.placebo.push import is_close, matched_factor, scaled_prompt, shuffled, turned
from tests.conftest import CommandLine


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 1000))
def test_a_turned_matrix_is_as_large_along_every_input(outputs: int, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(outputs + rank, rank, generator=generator)
    found = turned(matrix, generator)
    torch.testing.assert_close(found.T @ found, matrix.T @ matrix, rtol=1e-4, atol=1e-4)


def test_no_direction_is_preferred() -> None:
    generator, matrix = torch.Generator().manual_seed(0), torch.tensor([[1.0], [0.0], [0.0]])
    drawn = torch.stack([turned(matrix, generator)[:, 0] for _ in range(2000)])
    assert drawn.mean(0).abs().max() < 0.06 and (drawn.square().mean(0) - 1 / 3).abs().max() < 0.04


def test_a_shuffled_prompt_has_the_same_tokens_and_a_scaled_one_lies_on_a_line() -> None:
    prompt, quiet = torch.randn(2, 6, 4)
    assert sorted(shuffled(prompt, 1)[:, 0].tolist()) == sorted(prompt[:, 0].tolist())
    assert not torch.equal(shuffled(prompt, 1), prompt)
    torch.testing.assert_close(scaled_prompt(prompt, quiet, 0.0), quiet)
    torch.testing.assert_close(scaled_prompt(prompt, quiet, 1.0), prompt)


@given(st.floats(0.02, 50), st.floats(0.5, 3))
def test_the_factor_is_found_wherever_it_lies(factor: float, power: float) -> None:
    asked = []

    def divergence_at(tried: float) -> float:
        asked.append(tried)
        return 0.3 * tried**power

    found = matched_factor(divergence_at, 0.3 * factor**power)
    assert is_close(found.divergence, 0.3 * factor**power)
    assert found.divergence == 0.3 * found.factor**power and len(asked) < 20


def test_what_cannot_be_reached_is_come_as_close_to_as_can_be() -> None:
    assert matched_factor(lambda factor: 1 + math.log2(factor) ** 2, 0.5).divergence == 1
    assert matched_factor(lambda factor: min(factor, 2.0), 3.0).divergence == 2


TUNED = [
    "--budget",
    3072,
    "--tuning-samples",
    100,
    "--tuning-seq-len",
    16,
    "--examples-per-step",
    8,
    "--lengths",
    4,
    "--rank",
    2,
]
ASKED = ["--method", "gptq", "--bits", 3, *TUNED]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def made(llmrepair: CommandLine, runs: Path, kind: str, *more: object) -> tuple[dict[str, float], Path]:
    answer = llmrepair("tune-placebo", *ASKED, "--placebo-kind", kind, *more, "--json", "--runs", runs)
    assert answer.code == 0, answer.err
    return answer.json["metrics"], Path(answer.json["path"])


@pytest.mark.parametrize("kind", ["words", "random", "shuffled", "dense"])
def test_a_prompt_is_as_strong_as_the_one_that_was_tuned(llmrepair: CommandLine, runs: Path, kind: str) -> None:
    metrics, folder = made(llmrepair, runs, kind)
    push = metrics["push"]
    assert push["divergence"] == pytest.approx(push["wanted"], rel=0.02), push
    (prompt,), index = load_pool(folder)
    assert prompt.shape == (4, 64) and index["input_position"] == 4


def test_a_turned_adapter_is_as_strong_and_adds_something_else(llmrepair: CommandLine, runs: Path) -> None:
    metrics, folder = made(llmrepair, runs, "rotated")
    push = metrics["push"]
    assert push["divergence"] == pytest.approx(push["wanted"], rel=0.02)
    (tuned,) = (runs / "tune-lora").iterdir()
    before, after = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (tuned, folder))
    for name, matrix in before.items():
        if name.endswith("lora_B.weight"):
            expected = push["factor"] ** 2 * matrix.T @ matrix
            torch.testing.assert_close(after[name].T @ after[name], expected, rtol=1e-3, atol=1e-6)
            assert not torch.allclose(after[name], push["factor"] * matrix)
        else:
            assert torch.equal(after[name], matrix)


def test_seeds_and_kinds_are_artifacts_of_their_own_and_it_is_evaluated_as_any_repair(
    llmrepair: CommandLine, runs: Path
) -> None:
    asked = ["eval", *ASKED, "--recovery", "placebo", "--tasks", "lab_qa", "--limit", 8, "--json", "--runs", runs]
    keys = {llmrepair(*asked, *more).json["key"] for more in ([], ["--placebo-seed", 1], ["--placebo-kind", "rotated"])}
    assert len(keys) == 3
    again = llmrepair(*asked, "--objective", "lm").json
    assert again["cached"] and again["metrics"]["prompt_tokens"] == 4


def test_a_control_has_placebos_too(llmrepair: CommandLine, runs: Path) -> None:
    asked = ["tune-placebo", "--control", "corrupted", *TUNED, "--json", "--runs", runs]
    answer = llmrepair(*asked)
    assert answer.code == 0, answer.err
    record = json.loads((Path(answer.json["path"]) / "record.json").read_text())
    assert record["tags"]["method"] == "control corrupted"

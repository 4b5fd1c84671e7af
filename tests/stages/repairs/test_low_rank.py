"""Low-rank compensation: against the papers' formulas in float64, by its gains, and through the command line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from llmrepair.models.lora import adapter_of
from llmrepair.stages.repairs.low_rank.solve import compensation, power, shared_ranks
from tests.conftest import CommandLine, tiny_model

SHAPES = st.sampled_from([(5, 9), (9, 5), (7, 7), (1, 6)])
SEEDS = st.integers(0, 10_000)


def layer(shape: tuple[int, int], seed: int, tokens: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """An error [n, m] and the second moment of inputs that are far from alike."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = shape
    x = torch.randn(tokens, inputs, generator=generator, dtype=torch.float64) @ torch.randn(
        inputs, inputs, generator=generator, dtype=torch.float64
    )
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64), x.T @ x / tokens


def truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank]


def root(moment: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(moment)
    return vectors * values.sqrt() @ vectors.T


@settings(max_examples=30)
@given(SHAPES, SEEDS, st.integers(1, 4))
def test_exact_is_the_solution_of_qera_and_of_eora(shape: tuple[int, int], seed: int, rank: int) -> None:
    error, moment = layer(shape, seed)
    found = compensation(error, moment, rank, "exact")
    product = found.directions @ found.shares
    qera = truncated(error @ root(moment), rank) @ root(moment).inverse()
    values, vectors = torch.linalg.eigh(moment)
    scaled = vectors * values.sqrt()
    eora = truncated(error @ scaled, rank) @ scaled.inverse()
    torch.testing.assert_close(product, qera, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(product, eora, rtol=1e-6, atol=1e-6)


@settings(max_examples=30)
@given(SHAPES, SEEDS, st.integers(1, 4))
def test_no_other_terms_of_that_rank_leave_less_error(shape: tuple[int, int], seed: int, rank: int) -> None:
    """Brute force: alternating least squares from many starts, each step of which is the best for the other matrix."""
    error, moment = layer(shape, seed)
    found = compensation(error, moment, rank, "exact")
    left = power(error - found.directions @ found.shares, moment)
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(3):
        b = torch.randn(shape[0], rank, generator=generator, dtype=torch.float64)
        for _ in range(30):
            a = torch.linalg.pinv(b) @ error
            b = error @ moment @ a.T @ torch.linalg.pinv(a @ moment @ a.T)
        assert left <= power(error - b @ a, moment) * (1 + 1e-9) + 1e-12


@settings(max_examples=30)
@given(SHAPES, SEEDS, st.integers(1, 4), st.sampled_from(["exact", "diagonal", "plain"]))
def test_gains_are_what_the_error_falls_by(shape: tuple[int, int], seed: int, rank: int, kind: str) -> None:
    error, moment = layer(shape, seed)
    found = compensation(error, moment, rank, kind)  # type: ignore[arg-type]
    left = power(error - found.directions @ found.shares, moment)
    assert power(error, moment) - float(found.gains.sum()) == pytest.approx(left, rel=1e-9, abs=1e-9)


def test_plain_is_the_truncated_error_and_diagonal_that_of_scaled_columns() -> None:
    error, moment = layer((6, 8), 3)
    found = compensation(error, moment, 2, "plain")
    torch.testing.assert_close(found.directions @ found.shares, truncated(error, 2))
    scales = moment.diagonal().sqrt()
    found = compensation(error, moment, 2, "diagonal")
    torch.testing.assert_close(found.directions @ found.shares, truncated(error * scales, 2) / scales)


def test_inputs_that_span_less_than_the_layer_have_are_no_trouble() -> None:
    error, moment = layer((6, 8), 0, tokens=3)  # a root of which has no inverse
    found = compensation(error, moment, 3, "exact")
    assert power(error - found.directions @ found.shares, moment) < 1e-9 * power(error, moment)


@settings(max_examples=30)
@given(SEEDS, st.integers(0, 60))
def test_ranks_are_shared_out_for_the_greatest_gain(seed: int, budget: int) -> None:
    """Among all ranks that cost no more, where a direction costs the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    gains = {name: torch.rand(3, generator=generator).sort(descending=True).values for name in "abc"}
    ranks = shared_ranks(gains, dict.fromkeys(gains, 7), budget)
    assert 7 * sum(ranks.values()) <= budget

    def gain(of: tuple[int, ...]) -> float:
        return sum(float(gains[name][:rank].sum()) for name, rank in zip(gains, of, strict=True))

    every = [of for of in itertools.product(range(4), repeat=3) if 7 * sum(of) <= budget]
    assert gain(tuple(ranks.values())) == pytest.approx(max(map(gain, every)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_terms_of_full_rank_give_back_the_dense_model(family: str) -> None:
    ids = torch.arange(12)[None] % 90
    dense, damaged = tiny_model(family), tiny_model(family)
    terms, names = {}, [name for name, _ in dense.named_modules() if name.endswith(("v_proj", "c_attn", "fc1", "down_proj"))]
    for number, name in enumerate(names):
        weight = damaged.get_submodule(name).weight
        taken = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        taken[number % 3 :, :] = 0  # of rank 0 to 2
        weight.data -= taken
        error = taken.T if family == "gpt2" and name.endswith("c_attn") else taken
        found = compensation(error, torch.eye(error.shape[1]), number % 3, "exact")
        terms[name] = found.directions, found.shares
    adapted = adapter_of(damaged, terms)
    torch.testing.assert_close(adapted(input_ids=ids).logits, dense(input_ids=ids).logits, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


ASKED = ["--method", "gptq", "--bits", 2, "--group-size", 32, "--tasks", "lab_qa", "--limit", 200, "--json"]
TUNED = ["--recovery", "low-rank", "--tuning-samples", 200]


def test_it_brings_back_more_than_chance_and_says_what_it_did(llmrepair: CommandLine, runs: Path) -> None:
    none = llmrepair("eval", *ASKED, "--runs", runs).json["metrics"]["tasks"]["lab_qa"]["exact_match"]
    answer = llmrepair("eval", *ASKED, *TUNED, "--runs", runs).json
    repaired = answer["metrics"]["tasks"]["lab_qa"]["exact_match"]
    assert repaired["low"] > none["high"]
    (folder,) = (runs / "low-rank").iterdir()
    metrics = json.loads((folder / "record.json").read_text())["metrics"]
    assert metrics["output_error"]["low-rank"] < 0.7 * metrics["output_error"]["without"]
    assert metrics["validation_loss"]["low-rank"] < metrics["validation_loss"]["without"]
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == metrics["extra_parameters"] == 40960
    assert answer["metrics"]["extra_parameters"] == 40960


def test_ranks_by_layer_hold_no_more_and_leave_less_error(llmrepair: CommandLine, runs: Path) -> None:
    command = [
        "low-rank",
        "--method",
        "gptq",
        "--bits",
        2,
        "--group-size",
        32,
        "--tuning-samples",
        200,
        "--json",
        "--runs",
        runs,
    ]
    uniform, shared = (llmrepair(*command, *more).json["metrics"] for more in ([], ["--rank-by-budget"]))
    assert shared["extra_parameters"] <= uniform["extra_parameters"]
    assert len(set(shared["ranks"].values())) > 1
    assert shared["output_error"]["low-rank"] < uniform["output_error"]["low-rank"]


def test_what_is_learned_in_steps_has_no_effect(llmrepair: CommandLine, runs: Path) -> None:
    answer = llmrepair("eval", *ASKED, *TUNED, "--budget", 5_000_000, "--seed", 7, "--runs", runs).json
    assert answer["cached"]


def test_the_export_is_an_adapter_that_load_puts_in_place(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    key = llmrepair("eval", *ASKED, *TUNED, "--runs", runs).json["key"]
    assert llmrepair("export", key, "--to", tmp_path / "out", "--runs", runs).code == 0
    assert (tmp_path / "out" / "low-rank" / "adapter_model.safetensors").exists()
    assert "of the layers' outputs" in (tmp_path / "out" / "README.md").read_text().lower()


def test_of_a_model_that_lost_nothing_it_is_refused(llmrepair: CommandLine, runs: Path) -> None:
    answer = llmrepair("low-rank", "--method", "none", "--runs", runs)
    assert answer.code == 2
    assert "there is nothing to compensate for: no compression is asked for" in answer.err

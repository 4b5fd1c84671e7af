from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.loading import compressible_layers, load_model
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.stages.checkpoints.measure import tensor_bytes
from tests.conftest import CommandLine, tiny_model

DENSE = {"llama": 32.0, "opt": 32.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untied, tiny, random: a Llama and an OPT as a user would have them on disk."""
    folders = {}
    for family in DENSE:
        folders[family] = tmp_path_factory.mktemp(family)
        model = tiny_model(family)
        model.config.pad_token_id, model.config.eos_token_id = 0, 1
        tokenizer = make_tokenizer(128)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folders[family])
        tokenizer.save_pretrained(folders[family])
    return folders


def compress(llmrepair: CommandLine, runs: Path, model: Path, *options: object) -> dict[str, Any]:
    small = ["--samples", "16", "--seq-len", "32"]
    answer = llmrepair("compress", "--model", model, "--runs", runs, "--json", *small, *options)
    assert answer.code == 0, answer.err
    return dict(answer.json)


@pytest.mark.parametrize("family", list(DENSE))
@pytest.mark.parametrize(
    "options, bits, sparsity",
    [
        (["--method", "rtn", "--bits", 4], 4, None),
        (["--method", "gptq", "--bits", 3, "--column-order", "left-to-right"], 3, None),
        (["--method", "gptq", "--bits", 2, "--group-size", 16, "--asymmetric"], 2, None),
        (["--method", "gptq", "--bits", 8], 8, None),
        (["--method", "awq", "--bits", 4, "--group-size", 32], 4, None),
        (["--method", "sparsegpt", "--sparsity", 0.5], None, 0.5),
        (["--method", "wanda", "--pattern", "2:4"], None, 0.5),
        (["--method", "magnitude", "--sparsity", 0.25], None, 0.25),
        (["--method", "sparsegpt+gptq", "--bits", 4, "--pattern", "2:4", "--group-size", 32], 4, 0.5),
        (["--method", "wanda+gptq", "--bits", 3, "--sparsity", 0.6, "--asymmetric"], 3, 0.6),
    ],
)
def test_every_method_writes_what_it_says(
    llmrepair: CommandLine,
    tmp_path: Path,
    folders: dict[str, Path],
    family: str,
    options: list[object],
    bits: int | None,
    sparsity: float | None,
) -> None:
    answer = compress(llmrepair, tmp_path, folders[family], *options)
    metrics, checkpoint = answer["metrics"], Path(answer["path"]) / "checkpoint"
    dense, compressed = (
        load_model(str(folders[family]), None, "float32", torch.device("cpu")),
        load_model(str(checkpoint), None, "float32", torch.device("cpu")),
    )
    assert torch.equal(compressed.get_output_embeddings().weight, dense.get_output_embeddings().weight)
    assert torch.equal(compressed.get_input_embeddings().weight, dense.get_input_embeddings().weight)

    layers = compressible_layers(compressed)
    assert len(layers) == len(compressible_layers(dense)) == (21 if family == "llama" else 18)
    assert [layer["name"] for layer in metrics["layers"]] == list(layers) or family == "opt"  # which calls k_proj first
    assert all(0 < layer["output_error"] < 1 and layer["seconds"] > 0 for layer in metrics["layers"])
    assert metrics["reload_difference"] == 0.0
    assert all(metrics["five_tokens"].values())
    if bits is not None:
        assert all(len(row.unique()) <= 2**bits for layer in layers.values() for row in layer.weight.reshape(-1, 16)[:8])
        assert bits < metrics["bits_per_weight"] < bits + 4  # the rest is scales, which weigh much in tiny layers
        assert metrics["compression_ratio"] > 1
    if sparsity is not None:
        zeros = [(layer.weight == 0).float().mean().item() for layer in layers.values()]
        assert min(zeros) > sparsity - 0.02
        assert metrics["sparsity"] == pytest.approx(sparsity, abs=0.01) or bits
        assert metrics["bits_per_weight"] == 32.0 or bits
    if "2:4" in options:
        assert all(((layer.weight.reshape(-1, 4) != 0).sum(1) <= 2).all() for layer in layers.values())

    ids = torch.tensor([[5, 6, 7, 8, 9]])
    plain = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, compressed(input_ids=ids).logits)
    assert not torch.allclose(compressed(input_ids=ids).logits, dense(input_ids=ids).logits, atol=1e-3) or bits == 8
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}


def test_dense_format_holds_the_values_of_the_packed_one(
    llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path]
) -> None:
    packed, dense = (
        compress(llmrepair, tmp_path, folders["llama"], "--format", name, "--dtype", "bfloat16", "--bits", 8, "--asymmetric")
        for name in ("compressed-tensors", "dense")
    )
    weights = [
        load_model(f"{answer['path']}/checkpoint", None, "bfloat16", torch.device("cpu")).state_dict()
        for answer in (packed, dense)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert dense["metrics"]["bits_per_weight"] == 16.0
    assert "quantization_config" not in json.loads((Path(dense["path"]) / "checkpoint" / "config.json").read_text())


def test_the_dense_model_is_measured_and_not_copied(llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path]) -> None:
    answer = compress(llmrepair, tmp_path, folders["opt"], "--method", "none")
    assert answer["metrics"]["bits_per_weight"] == 32.0
    assert not (Path(answer["path"]) / "checkpoint").exists()


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_calibration_from_a_file(llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path], suffix: str) -> None:
    text = "Oslo Rome Paris. " * 40
    file = tmp_path / f"text{suffix}"
    file.write_text(text if suffix == ".txt" else json.dumps({"text": text}) + "\n")
    first = compress(llmrepair, tmp_path / "runs", folders["llama"], "--calibration", file)
    file.write_text(file.read_text().replace("Rome", "Bergen"))
    second = compress(llmrepair, tmp_path / "runs", folders["llama"], "--calibration", file)
    assert first["key"] != second["key"]


def test_too_little_calibration_text_fails_with_a_hint(
    llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path]
) -> None:
    (tmp_path / "short.txt").write_text("Oslo")
    answer = llmrepair(
        "compress", "--model", folders["llama"], "--calibration", tmp_path / "short.txt", "--runs", tmp_path / "runs"
    )
    assert answer.code == 2
    assert "gives 0 rows of" in answer.err
    assert "hint:" in answer.err
    assert not (tmp_path / "runs" / "compress").exists()


def test_tensor_bytes_reads_the_header(folders: dict[str, Path]) -> None:
    sizes = tensor_bytes([folders["llama"] / "model.safetensors"])
    model = load_model(str(folders["llama"]), None, "float32", torch.device("cpu"))
    assert sizes == {name: tensor.numel() * 4 for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("method", ["gptq", "sparsegpt", "wanda"])
def test_a_compression_gives_the_same_bytes_whatever_the_state_of_the_random_numbers(
    llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path], method: str
) -> None:
    written = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        path = compress(llmrepair, tmp_path / str(seed), folders["llama"], "--method", method)["path"]
        written.append((Path(path) / "checkpoint" / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_a_failure_behind_the_compression_does_not_make_it_start_again(
    llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress(llmrepair, tmp_path / "whole", folders["llama"])
    small = ["--model", folders["llama"], "--runs", tmp_path / "runs", "--samples", 16, "--seq-len", 32]
    with monkeypatch.context() as patch:
        patch.setattr("llmrepair.stages.compress.run.reload_in_fresh_process", failing)
        assert llmrepair("compress", *small).code == 1
    monkeypatch.setattr("llmrepair.stages.compress.run.compress_layers_of", failing)
    resumed = compress(llmrepair, tmp_path / "runs", folders["llama"])
    assert resumed["key"] == whole["key"]
    written = [Path(answer["path"], "checkpoint", "model.safetensors").read_bytes() for answer in (whole, resumed)]
    assert written[0] == written[1]
    named = [[layer["name"] for layer in answer["metrics"].pop("layers")] for answer in (whole, resumed)]  # they are timed
    assert (named[0], whole["metrics"]) == (named[1], resumed["metrics"])


def failing(*arguments: object) -> None:
    raise WorkError(Problem("memory ran out", "wait for others"))


def test_what_transformers_refuses_to_save_is_refused_before_the_compression(
    llmrepair: CommandLine, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrepair.stages.compress.run.compress_layers_of", lambda *arguments: pytest.fail("it began"))
    monkeypatch.setattr("transformers.PretrainedConfig.save_pretrained", failing)
    answer = llmrepair("compress", "--model", folders["llama"], "--runs", tmp_path, "--samples", 16, "--seq-len", 32)
    assert answer.code == 1
    assert "memory ran out" in answer.err

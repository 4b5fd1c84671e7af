"""Exports in another format than the one that is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmrepair.models.loading import load_model
from tests.conftest import CommandLine

CALIBRATION = ["--samples", "8", "--seq-len", "32"]
IDS = torch.arange(5, 37)[None]


@pytest.fixture
def packed(llmrepair: CommandLine, tmp_path: Path) -> Path:
    return compressed(llmrepair, tmp_path, "--method", "gptq", "--bits", "3", "--group-size", "32")


def compressed(llmrepair: CommandLine, tmp_path: Path, *options: str) -> Path:
    answer = llmrepair("compress", "--runs", tmp_path / "runs", "--json", *CALIBRATION, *options)
    assert answer.code == 0, answer.err
    return Path(answer.json["path"])


def logits(folder: Path) -> torch.Tensor:
    model = load_model(str(folder), None, "float32", torch.device("cpu"))
    return torch.as_tensor(model(IDS).logits)


def test_packed_weights_as_dense_ones(llmrepair: CommandLine, tmp_path: Path, packed: Path) -> None:
    answer = llmrepair("export", packed.name, "--to", tmp_path / "dense", "--format", "dense", "--runs", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "logits in the format dense differ by up to 0 " in answer.err
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)
    assert torch.equal(plain(IDS).logits, logits(packed / "checkpoint"))
    facts = json.loads((tmp_path / "dense" / "llmrepair.json").read_text())
    assert facts["bits_per_weight"] == 32.0
    assert facts["compression"]["quantization"] is None


def test_packed_weights_in_the_gptq_format(llmrepair: CommandLine, tmp_path: Path, packed: Path) -> None:
    pytest.importorskip("gptqmodel", reason="needs the extra [gptq]")
    answer = llmrepair("export", packed.name, "--to", tmp_path / "gptq", "--format", "gptq", "--runs", tmp_path / "runs")
    assert answer.code == 0, answer.err
    config = json.loads((tmp_path / "gptq" / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["bits"], config["group_size"], config["sym"]) == ("gptq", 3, 32, True)
    expected = logits(packed / "checkpoint")
    difference = (logits(tmp_path / "gptq") - expected).abs().max()
    assert 0 < difference < 2e-3 * expected.abs().max()  # scales are float16 in this format
    assert f"differ by up to {difference:.1g}"[:20] in answer.err
    assert 3 < json.loads((tmp_path / "gptq" / "llmrepair.json").read_text())["bits_per_weight"] < 5


@pytest.mark.parametrize(
    ("options", "file_format", "message"),
    [
        (["--method", "wanda"], "gptq", "is stored in the format dense, which is not turned into gptq"),
        (["--method", "rtn", "--format", "dense"], "compressed-tensors", "is stored in the format dense"),
        (["--method", "rtn"], "ghost", "`ghost` is no format"),
        (["--method", "rtn"], "gguf", "its tokenizer is WordLevel"),
        (["--model", "lab-opt", "--method", "none"], "gguf", "its family is `opt`, and llama, qwen2, "),
    ],
)
def test_what_is_refused(llmrepair: CommandLine, tmp_path: Path, options: list[str], file_format: str, message: str) -> None:
    artifact = compressed(llmrepair, tmp_path, *options)
    arguments = ["--to", tmp_path / "export", "--format", file_format, "--runs", tmp_path / "runs"]
    answer = llmrepair("export", artifact.name, *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "--format" in answer.err.split("hint:")[1]
    assert not (tmp_path / "export").exists()

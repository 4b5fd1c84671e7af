"""Norm tuning through the command line: it changes a score, it changes nothing but norms, and an export needs no llmrepair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from llmrepair import load
from tests import tiny_families
from tests.conftest import CommandLine

PACKED = ["--method", "rtn", "--bits", 2, "--group-size", 32]
TUNED = ["--recovery", "norms", "--tuning-samples", 60, "--budget", 24_576, "--learning-rates", 0.03]
SHORT = ["--method", "none", "--tuning-samples", 20, "--tuning-seq-len", 32, "--budget", 4096, "--learning-rates", 0.1]
IDS = torch.arange(3, 23).reshape(2, 10)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def evaluated(llmrepair: CommandLine, runs: Path, *options: object) -> dict[str, Any]:
    answer = llmrepair("eval", *options, "--limit", 20, "--device", "cpu", "--json", "--runs", runs)
    assert answer.code == 0, answer.err
    return dict(answer.json)


def tuned(runs: Path, key: str) -> tuple[dict[str, Any], Path]:
    """Metrics and folder of the tuning that an evaluation used."""
    folder = runs / json.loads((runs / "evaluate" / key / "key.json").read_text())["inputs"]["repair"]
    return json.loads((folder / "record.json").read_text())["metrics"], folder


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits
    return found


def test_it_lowers_the_loss_and_adds_nothing(llmrepair: CommandLine, runs: Path) -> None:
    answer, plain = evaluated(llmrepair, runs, *PACKED, *TUNED), evaluated(llmrepair, runs, *PACKED)
    metrics, folder = tuned(runs, answer["key"])
    assert metrics["validation_loss"]["norms"] < metrics["validation_loss"]["without"] - 0.05
    assert (metrics["extra_parameters"], metrics["trained_parameters"]) == (0, 576)
    assert answer["metrics"]["extra_parameters"] == 0
    assert answer["metrics"]["bits_per_weight"] == plain["metrics"]["bits_per_weight"]
    difference = logits(load(answer["key"], runs=runs, device="cpu")) - logits(load(plain["key"], runs=runs, device="cpu"))
    assert difference.abs().max() > 0.1
    assert sum(tensor.numel() for tensor in load_file(folder / "tensors.safetensors").values()) == 576


def test_an_export_holds_the_norms_and_every_code_as_it_was(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    key, out = evaluated(llmrepair, runs, *PACKED, *TUNED)["key"], tmp_path / "out"
    assert llmrepair("export", key, "--to", out, "--runs", runs).code == 0
    (stored,) = (runs / "compress").glob("*/checkpoint/model.safetensors")
    before, after, norms = (
        load_file(each) for each in (stored, out / stored.name, tuned(runs, key)[1] / "tensors.safetensors")
    )
    assert after.keys() == before.keys() > norms.keys()
    assert all(torch.equal(after[name], norms.get(name, before[name])) for name in before)
    assert not any(torch.equal(after[name], before[name]) for name in norms)
    assert any(name.endswith("weight_packed") for name in after)
    unpacked = CompressedTensorsConfig(dequantize=True)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, quantization_config=unpacked)
    expected = logits(load(key, runs=runs, device="cpu"))
    assert torch.equal(logits(plain), expected)
    assert torch.equal(logits(load(out, device="cpu")), expected)


def test_the_card_says_what_was_tuned(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    key = evaluated(llmrepair, runs, *PACKED, *TUNED)["key"]
    assert llmrepair("export", key, "--to", tmp_path / "out", "--runs", runs).code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "with its norms tuned, written by llmrepair" in card
    assert "| extra parameters | 0 (merged) |" in card
    assert "before the 576 parameters were tuned" in card
    assert "**norms**" in card
    assert "adapter" not in card


def test_another_format_holds_the_norms_too(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    key, out = evaluated(llmrepair, runs, *PACKED, *TUNED)["key"], tmp_path / "out"
    answer = llmrepair("export", key, "--to", out, "--format", "dense", "--runs", runs)
    assert answer.code == 0, answer.err
    exported = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    torch.testing.assert_close(logits(exported), logits(load(key, runs=runs, device="cpu")), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options", [["--method", "gptq", "--bits", 4, "--format", "gptq"], ["--dtype", "bfloat16", "--method", "none"]]
)
def test_other_files_and_another_precision(llmrepair: CommandLine, runs: Path, tmp_path: Path, options: list[object]) -> None:
    answer = llmrepair("tune-norms", *options, *SHORT[2:], "--json", "--runs", runs)
    assert answer.code == 0, answer.err
    key, out = f"tune-norms/{answer.json['key']}", tmp_path / "out"
    assert llmrepair("export", key, "--to", out, "--runs", runs).code == 0
    norms = load_file(runs / key / "tensors.safetensors")
    files = load_file(out / "model.safetensors")
    assert all(torch.equal(files[name], norm) and files[name].dtype == norm.dtype for name, norm in norms.items())
    assert torch.equal(logits(load(out, device="cpu")), logits(load(key, runs=runs, device="cpu")))


def export_of(llmrepair: CommandLine, folder: Path, runs: Path, *options: object) -> Path:
    """An export of what was tuned for a dense model, which gives the logits of `load`."""
    answer = llmrepair("tune-norms", "--model", folder, *SHORT, *options, "--json", "--runs", runs)
    assert answer.code == 0, answer.err
    losses, key = answer.json["metrics"]["validation_loss"], answer.json["key"]
    assert losses["norms"] < losses["without"]
    out = folder.parent / f"{folder.name} repaired"
    assert llmrepair("export", key, "--to", out, "--runs", runs).code == 0
    exported = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert torch.equal(logits(exported), logits(load(key, runs=runs, device="cpu")))
    return out


@pytest.mark.parametrize(("family", "train"), [("gemma2", "norms"), ("opt", "norms"), ("gpt2", "biases")])
def test_families(llmrepair: CommandLine, models: Path, runs: Path, family: str, train: str) -> None:
    """Gemma stores weights less one; OPT's and GPT-2's norms have biases."""
    folder = tiny_families.tiny_folder(models / family, family)
    out = export_of(llmrepair, folder, runs, "--train", train)
    before, after = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {name for name, tensor in before.items() if tensor.dim() == 1}
    assert any(name.endswith(".bias") for name in changed) == (family != "gemma2")
    others = {name for name in changed if "norm" not in name and "ln_" not in name}
    assert bool(others) == (train == "biases")


def test_files_that_leave_out_the_name_of_the_body(llmrepair: CommandLine, models: Path, runs: Path) -> None:
    """As GPT-2's on the Hub."""
    folder = tiny_families.tiny_folder(models / "body", "gpt2")
    config = (folder / "config.json").read_text()
    AutoModelForCausalLM.from_pretrained(folder).transformer.save_pretrained(folder)
    (folder / "config.json").write_text(config)
    assert "ln_f.weight" in load_file(folder / "model.safetensors")
    assert "ln_f.weight" in load_file(export_of(llmrepair, folder, runs) / "model.safetensors")


@pytest.mark.parametrize(
    ("family", "train", "said"),
    [
        ("olmo", "norms", "the norms of `olmo` have no weights"),
        ("llama", "biases", "no layer of `llama` has a bias, but for norms"),
    ],
)
def test_a_model_without_any_is_refused(
    llmrepair: CommandLine, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, train: str, said: str
) -> None:
    tiny_families.tiny_folder(models / family, family)
    monkeypatch.chdir(models)
    answer = llmrepair("tune-norms", "--model", family, *SHORT, "--train", train, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert said in answer.err and "hint: " in answer.err

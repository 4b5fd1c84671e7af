"""What a model folder is made of: what is loaded counts, and what would be loaded without a word is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import RequestError
from llmrepair.pipeline.keys import file_digest
from llmrepair.stages.sources.lab import lab_folder
from llmrepair.stages.sources.models import ModelSource, adapter_problem, model_name, resolve_model, weights_on_disk
from tests.conftest import CommandLine, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    tiny_model("llama").save_pretrained(place)
    return place


def test_a_model_is_called_by_the_last_part_of_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "lab": "lab",
        "org/Model-1.7B": "Model-1.7B",
        "./a/Model-1.7B/": "Model-1.7B",
        "a/Model-1.7B.Q4_1.gguf": "Model-1.7B.Q4_1",
    }
    assert {model: model_name(model) for model in names} == names
    assert model_name(".") == tmp_path.name


def refused(folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        resolve_model(str(folder), None, lambda paths: [file_digest(path) for path in paths])
    return caught.value.problems[0].message


def test_an_adapter_beside_the_weights_is_refused_by_name(folder: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(folder)
    assert refused(folder) == adapter_problem(str(folder)).message
    (folder / "config.json").unlink()  # an adapter alone
    assert refused(folder) == adapter_problem(str(folder)).message


@pytest.mark.parametrize("command", [["compress", "--method", "none"], ["eval", "--method", "none"], ["control"]])
def test_an_adapter_on_the_hub_is_refused_before_any_work(
    command: list[str], llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--tiny" / "snapshots" / ("c" * 40)
    (cache / "models--someone--tiny" / "refs").mkdir(parents=True)
    (cache / "models--someone--tiny" / "refs" / "main").write_text("c" * 40)
    embedded = lab_folder("lab")
    assert embedded is not None
    shutil.copytree(embedded, snapshot)
    (snapshot / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))
    options = ["--control", "corrupted"] if command == ["control"] else []
    answer = llmrepair(*command, *options, "--model", "someone/tiny", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert adapter_problem("someone/tiny").message in answer.err


def copies(folder: Path, **files: str) -> None:
    """Puts the weights into a folder once more, in float32, under other names."""
    for name in files.values():
        save_file({key: tensor.float() for key, tensor in load_file(folder / "model.safetensors").items()}, folder / name)


def test_only_what_is_loaded_counts(folder: Path) -> None:
    alone = weights_on_disk(ModelSource(str(folder), None, {}))
    copies(folder, one="consolidated.safetensors", other="model.fp32.safetensors")
    assert weight_files(folder) == [folder / "model.safetensors"]
    assert weights_on_disk(ModelSource(str(folder), None, {})) == alone


def test_the_files_of_an_index_count(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    save_file({"x": torch.zeros(100_000)}, tmp_path / "consolidated.safetensors")
    assert len(shards) > 1
    assert weight_files(tmp_path) == shards
    shards[0].unlink()
    assert f"lacks {shards[0].name}" in refused(tmp_path)


def test_the_file_that_the_config_names_counts(folder: Path) -> None:
    copies(folder, other="model.fp32.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "model.fp32.safetensors"}))
    assert weight_files(folder) == [folder / "model.fp32.safetensors"]
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32


def test_weights_that_nothing_loads_are_told(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    assert "consolidated.safetensors is not what transformers loads" in refused(folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_index_that_cannot_be_read_is_told(folder: Path, text: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    assert "cannot be read" in refused(folder)


def test_the_size_of_a_dense_model_is_that_of_what_is_loaded(tmp_path: Path, llmrepair: CommandLine) -> None:
    embedded = lab_folder("lab")
    assert embedded is not None
    place = tmp_path / "model"
    shutil.copytree(embedded, place)
    true = (place / "model.safetensors").stat().st_size
    copies(place, other="consolidated.safetensors")
    answer = llmrepair("compress", "--model", place, "--method", "none", "--runs", tmp_path / "runs", "--json")
    assert answer.json["metrics"]["size_bytes"] == true

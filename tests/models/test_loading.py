from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.experts import experts_as_layers
from llmrepair.models.loading import compressible_layers, load_model, load_tokenizer
from llmrepair.stages.checkpoints.grid import Grid, round_to_nearest
from llmrepair.stages.checkpoints.packed import save_packed
from tests.conftest import tiny_model
from tests.tiny_families import tiny_model as family_model


def test_what_does_not_sample_and_says_how_to_is_loaded_and_saved(tmp_path: Path) -> None:
    """As Llama 2 chat was shipped; transformers would refuse to save it."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    settings |= {"temperature": 0.9, "top_p": 0.6, "top_k": 20, "max_length": 99}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(settings))
    model = load_model(str(tmp_path / "model"), None, "float32", torch.device("cpu"))
    model.save_pretrained(tmp_path / "saved")
    assert model.generation_config.max_length == 99
    assert not model.generation_config.do_sample


@pytest.mark.parametrize("wrong", [{"pad_token_id": -1}, {"early_stopping": True}, {"length_penalty": 2.0}])
def test_settings_that_transformers_refuses_to_save_keep_the_special_tokens(tmp_path: Path, wrong: dict[str, Any]) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [1, 5]} | wrong))
    model = load_model(str(tmp_path / "model"), None, "float32", torch.device("cpu"))
    model.save_pretrained(tmp_path / "saved")
    assert model.generation_config.eos_token_id == [1, 5]


def test_a_model_that_was_asked_for_attentions_is_loaded_and_saved(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings | {"output_attentions": True}))
    load_model(str(tmp_path / "model"), None, "float32", torch.device("cpu")).save_pretrained(tmp_path / "saved")


def test_what_samples_keeps_its_settings(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.generation_config.update(do_sample=True, temperature=0.9)
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), None, "float32", torch.device("cpu"))
    assert (loaded.generation_config.do_sample, loaded.generation_config.temperature) == (True, 0.9)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_all_of_an_unpacked_model_goes_to_the_device_that_is_asked_for(tmp_path: Path, device: str) -> None:
    model = tiny_model("llama")
    layers = {
        name: round_to_nearest(layer.weight, Grid(4, -1, True, torch.float32))
        for name, layer in compressible_layers(model).items()
    }
    save_packed(model, layers, tmp_path)
    loaded = load_model(str(tmp_path), None, "float32", torch.device(device))
    assert {tensor.device.type for tensor in [*loaded.parameters(), *loaded.buffers()]} == {device}
    assert {type(module._parameters) for module in loaded.modules()} == {dict}
    if device == "cpu":
        assert all(torch.equal(loaded.get_submodule(name).weight, layer.dequantise()) for name, layer in layers.items())


@pytest.mark.parametrize("family", ["bert", "mimo_v2_flash"])
def test_an_unpacked_model_keeps_the_code_and_settings_of_its_family(tmp_path: Path, family: str) -> None:
    """BERT's `forward` has a decorator, as most have, and MiMo's attention a `v_scale` that is none of a quantised cache."""
    model = family_model(family, 96)
    with experts_as_layers(model):
        weights = {name: layer.weight for name, layer in compressible_layers(model).items()}
    grid = Grid(8, -1, True, torch.float32)
    save_packed(model, {name: round_to_nearest(weight, grid) for name, weight in weights.items()}, tmp_path)
    loaded = load_model(str(tmp_path), None, "float32", torch.device("cpu"))
    assert all(module.forward.__func__ is type(module).forward for module in loaded.modules())
    assert isinstance(loaded(torch.arange(5)[None], return_dict=False), tuple)


def test_a_tokenizer_is_what_its_file_says(tmp_path: Path) -> None:
    """Transformers makes byte pairs of whatever stands beside a Qwen2."""
    tiny_model("qwen2").save_pretrained(tmp_path)
    make_tokenizer(64).save_pretrained(tmp_path)
    text = "Thoma works in Ghent."
    assert load_tokenizer(str(tmp_path), None)(text)["input_ids"] == make_tokenizer(64)(text)["input_ids"]

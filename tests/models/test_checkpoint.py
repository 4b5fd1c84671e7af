"""Tensors of a checkpoint beside those of its model, without loading any."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM

from llmrepair.models.checkpoint import first_not_finite, misfit
from llmrepair.models.failures import WrongFile
from llmrepair.models.loading import load_model, meta_model
from tests.conftest import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_fits_what_it_was_saved_as(tmp_path: Path, family: str) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    found = misfit(meta_model(str(tmp_path), None), [tmp_path / "model.safetensors"])
    assert (str(found), found.unexpected) == ("", [])


def test_experts_are_joined_on_loading_and_not_missing(tmp_path: Path) -> None:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_local_experts": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    assert str(misfit(meta_model(str(tmp_path), None), [file])) == ""
    tensors = load_file(file)
    name = next(name for name in tensors if ".experts.1." in name)
    save_file(tensors | {name: torch.zeros(3, 3)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="such as those of experts, some are missing or of another shape"):
        misfit(meta_model(str(tmp_path), None), [file])
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    assert misfit(meta_model(str(tmp_path), None), [file]).missing == [name]


def test_a_checkpoint_that_lacks_a_tensor_is_not_loaded(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"], tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongFile, match=r"`model.layers.0.mlp.up_proj.weight` and 1 more tensors.* are missing"):
        load_model(str(tmp_path), None, "float32", torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_found_wherever_it_stands(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    good = {"a": torch.zeros(0), "b": torch.arange(5), "c": torch.full((3, 4), -7.0).to(dtype)}
    save_file(good, tmp_path / "good.safetensors")
    assert first_not_finite(tmp_path / "good.safetensors") is None
    for place in (0, 5, 11):
        spoilt = torch.full((12,), -7.0)
        spoilt[place] = value
        save_file(good | {"c": spoilt.to(dtype)}, tmp_path / "spoilt.safetensors")
        assert first_not_finite(tmp_path / "spoilt.safetensors") == "c"

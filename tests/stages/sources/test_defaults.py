"""What a user's own model is compressed and tuned with where nothing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.stages.repairs import TUNINGS
from llmrepair.stages.request import compress_stage, tuning_stage
from llmrepair.stages.sources.defaults import fitting_group_size, own_defaults
from tests.conftest import CommandLine, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 128 positions, saved in float32."""
    place = tmp_path_factory.mktemp("models") / "mine"
    model, tokenizer = tiny_model("llama", hidden=48), make_tokenizer(96)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def settings(folder: Path, **changed: Any) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    other = folder.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text(json.dumps({**config, **changed}))
    return own_defaults(str(other), None)


def test_rows_are_as_long_as_the_model_takes_them(folder: Path) -> None:
    assert [own_defaults(str(folder), None)[name] for name in ("seq_len", "tuning_seq_len")] == [128, 64]
    assert [settings(folder, max_position_embeddings=8192)[name] for name in ("seq_len", "tuning_seq_len")] == [512, 256]


def test_the_precision_is_the_one_that_the_model_was_saved_in(folder: Path) -> None:
    assert settings(folder, dtype="bfloat16")["dtype"] == "bfloat16"
    assert settings(folder, dtype=None)["dtype"] == "float32"


def test_the_embedded_models_keep_their_own() -> None:
    assert own_defaults("lab", None) == own_defaults("lab-opt", None) == {}


def test_a_default_is_in_the_key_as_its_value_and_makes_way_for_what_is_given(folder: Path) -> None:
    model = {"model": str(folder)}
    assert compress_stage(model).config.identity()["seq_len"] == 128
    assert tuning_stage(TUNINGS["tune-lora"], model).config.identity()["tuning_seq_len"] == 64
    given = {**model, "seq_len": 32, "dtype": "float16"}
    assert compress_stage(given).config.identity().items() >= {"seq_len": 32, "dtype": "float16"}.items()


def test_text_that_cannot_be_had_is_told_with_its_option(
    llmrepair: CommandLine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrepair.stages.sources.defaults.DEFAULT_TEXT", "wikitext2")
    common = ["--model", folder, "--runs", tmp_path / "runs"]
    answer = llmrepair("compress", *common)
    assert answer.code == 2 and "Salesforce/wikitext" in answer.err and "give --calibration a .txt file" in answer.err
    answer = llmrepair("tune-lora", *common, "--method", "none")
    assert answer.code == 2 and "give --tuning-data a .txt file" in answer.err


def test_a_group_size_that_fits() -> None:
    assert [fitting_group_size(columns) for columns in ([576, 1536], [4096, 11008], [48], [36, 64])] == [64, 128, 16, -1]


def test_auto_stands_for_the_group_size_that_fits_and_an_error_names_it(
    llmrepair: CommandLine, folder: Path, tmp_path: Path
) -> None:
    options = {"model": str(folder), "method": "rtn", "bits": 4}
    assert compress_stage({**options, "group_size": "auto"}).config.group_size == 16
    answer = llmrepair("compress", "--model", folder, "--method", "rtn", "--group-size", 128, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "a group size of 128 does not divide layers with 48 and 96 columns" in answer.err
    assert "give --group-size 16, which fits all layers" in answer.err

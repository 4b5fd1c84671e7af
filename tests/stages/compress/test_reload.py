"""A checkpoint that is not what it should be does not count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.pipeline.errors import WorkError
from llmrepair.stages.checkpoints.reload import reload_in_fresh_process, some_logits
from tests.conftest import tiny_model

FRESH = pytest.mark.usefixtures("fresh_process")
ROWS, CPU = torch.arange(5, 37)[None], torch.device("cpu")


def saved(folder: Path) -> torch.Tensor:
    model = tiny_model("llama")
    model.save_pretrained(folder)
    make_tokenizer(128).save_pretrained(folder)
    return some_logits(model, ROWS)


@FRESH
def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    reloaded = reload_in_fresh_process(tmp_path / "model", "float32", CPU, False, ROWS, saved(tmp_path / "model"), tmp_path)
    assert reloaded.difference == 0.0
    assert reloaded.measures["bits_per_weight"] == 32.0


def test_other_logits_fail(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="differ by up to"):
        reload_in_fresh_process(tmp_path / "model", "float32", CPU, False, ROWS, saved(tmp_path / "model") + 1, tmp_path)


@FRESH
def test_a_broken_file_fails_with_its_reason(tmp_path: Path) -> None:
    expected = saved(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WorkError, match=r"does not load in a fresh process: .*Error"):
        reload_in_fresh_process(tmp_path / "model", "float32", CPU, False, ROWS, expected, tmp_path)

"""The estimate of a compression's needs beside what is measured, on a random Llama of 134 M parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llmrepair.lab.tokenizer import make_tokenizer
from tests.stages.compress.test_memory import check_estimate, measured

pytestmark = pytest.mark.stress
VOCABULARY = 32_000
_ROWS = ["--calibration", "lab", "--samples", 32, "--seq-len", 128]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 layers x 768, in float32."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=1024, **sizes)).save_pretrained(folder)
    make_tokenizer(128).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["gptq", "wanda"])
def test_the_estimate_is_within_a_quarter(llama: Path, tmp_path: Path, method: str, dtype: str) -> None:
    options = ["--model", llama, "--method", method, "--dtype", dtype, *_ROWS]
    check_estimate(*measured(tmp_path, *options), vocabulary=VOCABULARY)

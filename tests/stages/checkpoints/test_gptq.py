"""The GPTQ format: what is written is read back exactly, by this project, by transformers and by gptqmodel."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, GPTQConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.gptq import import_gptqmodel
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.lora import new_adapter
from llmrepair.stages.checkpoints.gptq import GROUP_SIZES, _packed, format_problems, reading_problems, save_gptq
from llmrepair.stages.checkpoints.grid import Grid, Quantised, round_to_nearest
from tests.conftest import VOCABULARY, CommandLine, tiny_model

import_gptqmodel()

from gptqmodel import BACKEND, GPTQModel, QuantizeConfig  # noqa: E402
from gptqmodel.nn_modules.qlinear.torch import TorchLinear  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
IDS = torch.arange(24).reshape(2, 12) % VOCABULARY
ROUNDING = {"rtol": 0, "atol": 0.02}  # of float16, in which processors multiply matrices in different ways


def quantised_model(family: str, grid: Grid) -> tuple[PreTrainedModel, dict[str, Quantised]]:
    """A model whose layers hold values of the grid, and their codes; biases are none that float16 holds."""
    model = tiny_model(family, hidden=64)
    quantised = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D) and layer is not model.get_output_embeddings():
            transposed = isinstance(layer, Conv1D)
            quantised[name] = round_to_nearest(layer.weight.T if transposed else layer.weight, grid)
            weight = quantised[name].dequantise()
            layer.weight.copy_(weight.T if transposed else weight)
            if layer.bias is not None:
                layer.bias.uniform_(-1, 1)
    return model, quantised


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    state, others = model.state_dict(), other.state_dict()
    assert list(state) == list(others)  # in one order
    assert [name for name in state if not torch.equal(state[name], others[name])] == []


@pytest.mark.parametrize(
    "family, bits, symmetric, group_size",
    [
        *(
            ("llama", bits, symmetric, group_size)
            for bits in (2, 3, 4, 8)
            for symmetric in (True, False)
            for group_size in (-1, 32)
        ),
        *(("opt", bits, symmetric, 16) for bits, symmetric in ((3, True), (4, False))),
        *(("gpt2", bits, symmetric, 64) for bits, symmetric in ((2, False), (3, True), (8, True))),
    ],
)
def test_a_written_model_is_read_back_exactly(tmp_path: Path, family: str, bits: int, symmetric: bool, group_size: int) -> None:
    model, quantised = quantised_model(family, Grid(bits, group_size, symmetric, torch.float16))
    save_gptq(model, quantised, tmp_path)
    loaded = load_model(str(tmp_path), None, "float32", CPU)
    assert_same_weights(loaded, model)
    assert [type(layer) for layer in loaded.modules()] == [type(layer) for layer in model.modules()]
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert not hasattr(model.config, "quantization_config") and not hasattr(loaded.config, "quantization_config")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_is_read_in_the_dtype_that_is_asked_for(tmp_path: Path, dtype: str) -> None:
    model, quantised = quantised_model("opt", Grid(4, 32, True, torch.float16))
    save_gptq(model, quantised, tmp_path)
    loaded = load_model(str(tmp_path), None, dtype, CPU)
    assert {weight.dtype for weight in loaded.parameters()} == {getattr(torch, dtype)}
    assert_same_weights(loaded, model.to(getattr(torch, dtype)))


def logits_of_gptqmodel(folder: Path) -> torch.Tensor:
    """By its own loader; it knows no float32."""
    model = GPTQModel.load(str(folder), backend=BACKEND.TORCH, device="cpu", dtype=torch.float16).model
    with torch.compiler.set_stance("force_eager"), torch.no_grad():  # it would compile each layer for seconds
        return model(IDS).logits


@pytest.mark.parametrize("symmetric", [True, False])
def test_other_readers_get_the_same_logits(tmp_path: Path, symmetric: bool) -> None:
    model, quantised = quantised_model("llama", Grid(3, 32, symmetric, torch.float16))
    save_gptq(model, quantised, tmp_path)
    save_tokenizer(tmp_path)  # gptqmodel asks for one
    loaded = load_model(str(tmp_path), None, "float16", CPU)
    by_transformers = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=GPTQConfig(bits=3, backend="torch")
    )
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        assert torch.equal(by_transformers(IDS).logits, model(IDS).logits)
    torch.testing.assert_close(logits_of_gptqmodel(tmp_path), loaded(IDS).logits, **ROUNDING)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_packing_keeps_codes_scales_and_zero_points(data: st.DataObject) -> None:
    bits, symmetric = data.draw(st.sampled_from((2, 3, 4, 8))), data.draw(st.booleans())
    rows, columns = 32 * data.draw(st.integers(1, 4)), 32 * data.draw(st.integers(1, 6))
    group_size = data.draw(st.sampled_from([size for size in (16, 32, 64, columns) if columns % size == 0]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    shape = (rows, columns // group_size)
    zero_point = torch.full(shape, 2 ** (bits - 1)) if symmetric else torch.randint(2**bits, shape, generator=generator)
    layer = Quantised(
        torch.randint(2**bits, (rows, columns), generator=generator, dtype=torch.uint8),
        torch.rand(shape, generator=generator).mul(data.draw(st.sampled_from((1e-6, 1.0, 200.0)))).add(1e-7).half(),
        zero_point.to(torch.uint8),
        bits,
        symmetric,
    )
    packed = _packed(layer)
    assert packed["qweight"].numel() * 32 == bits * rows * columns
    codes = unpacked(packed["qweight"].T, bits)  # an independent reading: a stream of bits, the lowest first
    assert torch.equal(codes, layer.codes.long())
    assert torch.equal((unpacked(packed["qzeros"], bits).T + int(symmetric)), layer.zero_point.long())
    assert torch.equal(packed["scales"].T, layer.scale)
    assert torch.equal(packed["g_idx"], torch.arange(columns) // group_size)


def unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers [N, 32 M / bits] from int32 words [N, M]."""
    stream = (words[..., None] >> torch.arange(32) & 1).flatten(1)
    return (stream.unflatten(1, (-1, bits)) << torch.arange(bits)).sum(-1)


def test_gradients_are_those_of_the_dense_model(tmp_path: Path) -> None:
    model, quantised = quantised_model("llama", Grid(4, 32, True, torch.float16))
    save_gptq(model, quantised, tmp_path)
    loaded = load_model(str(tmp_path), None, "float32", CPU)
    with torch.no_grad():
        loaded(IDS)  # gptqmodel's default backend returns wrong gradients after this
    assert torch.equal(gradient(loaded), gradient(model))


def gradient(model: PreTrainedModel) -> torch.Tensor:
    embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_()
    model(inputs_embeds=embeddings, labels=IDS).loss.backward()
    assert embeddings.grad is not None
    return embeddings.grad


def test_lora_adapters_start_as_on_the_dense_model(tmp_path: Path) -> None:
    model, quantised = quantised_model("gpt2", Grid(4, 32, True, torch.float16))
    save_gptq(model, quantised, tmp_path)
    adapted = []
    for each in (model, load_model(str(tmp_path), None, "float32", CPU)):
        torch.manual_seed(0)
        adapted.append(new_adapter(each, 2))
    assert_same_weights(*adapted)


def test_gptqmodel_is_imported_without_a_trace() -> None:
    """By peft, for a model that is not packed: nothing on standard output, and no variables for child processes."""
    script = """if True:
        import os
        from llmrepair.models.lora import new_adapter
        from tests.conftest import tiny_model
        model, before = tiny_model("llama"), dict(os.environ)
        new_adapter(model, 2)
        import sys
        assert "gptqmodel" in sys.modules and os.environ == before
    """
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_format_problems() -> None:
    layers = {"model.layers.0.mlp.up": (96, 64), "model.layers.0.self_attn.k_proj": (16, 64), "model.project_in": (64, 32)}
    messages = [problem.message for problem in format_problems(layers, 24)]
    assert len(messages) == 3
    assert "groups of 24" in messages[0] and "not 16 x 64" in messages[1] and "`model.project_in`" in messages[2]
    assert format_problems({"model.layers.0.mlp.up": (96, 64)}, 32) == []
    assert list(GROUP_SIZES) == TorchLinear.SUPPORTS_GROUP_SIZE


def test_a_kind_of_checkpoint_that_is_not_read_is_refused() -> None:
    settings: dict[str, Any] = {"quant_method": "gptq", "bits": 4}
    assert reading_problems("m", settings) == []
    for odd in ({"bits": 5}, {"lm_head": True}, {"checkpoint_format": "gptq_p"}, {"dynamic": {"-:.*q_proj": {}}}):
        (problem,) = reading_problems("m", settings | odd)
        assert next(iter(odd)).removeprefix("checkpoint_") in problem.message


def save_tokenizer(folder: Path) -> int:
    """Its vocabulary."""
    tokenizer = make_tokenizer(128)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="module")
def gptqmodels_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that gptqmodel quantised in activation order and saved, with a tokenizer."""
    dense, folder = tmp_path_factory.mktemp("dense"), tmp_path_factory.mktemp("gptqmodel")
    model = tiny_model("llama", hidden=64)
    model.config.pad_token_id, model.config.eos_token_id = 0, 1
    save_tokenizer(folder)
    model.resize_token_embeddings(save_tokenizer(dense))
    model.save_pretrained(dense)
    # Its other packers compile C++ first.
    config = QuantizeConfig(bits=4, group_size=32, desc_act=True, pack_impl="original", offload_to_disk=False)
    quantiser = GPTQModel.load(str(dense), config, device="cpu", dtype=torch.float32)
    rows = torch.randint(3, VOCABULARY, (8, 64), generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPTQMODEL_CPU_WORKERS", "2")  # it takes less than 2 for an error
        patch.chdir(dense)  # it logs to the current folder
        quantiser.quantize([{"input_ids": row.tolist(), "attention_mask": [1] * 64} for row in rows], batch_size=1)
    quantiser.save(str(folder))
    return folder


def test_a_checkpoint_of_gptqmodel_has_the_logits_it_has_there(gptqmodels_own: Path) -> None:
    loaded = load_model(str(gptqmodels_own), None, "float16", CPU)
    torch.testing.assert_close(loaded(IDS).logits, logits_of_gptqmodel(gptqmodels_own), **ROUNDING)


def test_a_gptq_checkpoint_is_evaluated(llmrepair: CommandLine, tmp_path: Path, gptqmodels_own: Path) -> None:
    options = ["--model", gptqmodels_own, "--method", "none", "--runs", tmp_path, "--json"]
    answer = llmrepair("eval", *options, "--tasks", "lab_qa", "--limit", 3)
    assert answer.code == 0, answer.err
    assert 0 <= answer.json["metrics"]["tasks"]["lab_qa"]["exact_match"]["value"] <= 1
    compressed = json.loads(next(tmp_path.glob("compress/*/record.json")).read_text())["metrics"]
    assert 4 < compressed["bits_per_weight"] < 6


def test_compress_writes_the_format(llmrepair: CommandLine, tmp_path: Path) -> None:
    model = tiny_model("gpt2", hidden=64)
    model.resize_token_embeddings(save_tokenizer(tmp_path / "model"))
    model.save_pretrained(tmp_path / "model")
    options = ["--model", tmp_path / "model", "--method", "gptq", "--bits", 4, "--samples", 8, "--seq-len", 32, "--asymmetric"]
    answer = llmrepair("compress", *options, "--format", "gptq", "--runs", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["metrics"]["reload_difference"] == 0
    config = json.loads((Path(answer.json["path"]) / "checkpoint" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "gptq"


def test_a_model_that_the_format_cannot_hold_is_refused(llmrepair: CommandLine, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model")
    model = tiny_model("llama")
    model.resize_token_embeddings(len(load_tokenizer(str(tmp_path / "model"), None)))
    model.save_pretrained(tmp_path / "model")
    answer = llmrepair("compress", "--model", tmp_path / "model", "--format", "gptq", "--seq-len", 32, "--runs", tmp_path)
    assert answer.code == 2
    assert "in multiples of 32 rows and columns, not 16 x 32" in answer.err


def test_without_the_extra_a_gptq_checkpoint_is_refused(
    llmrepair: CommandLine, tmp_path: Path, gptqmodels_own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("llmrepair.models.gptq.find_spec", lambda name: None if name == "optimum" else found(name))
    for options in (["eval", "--model", gptqmodels_own, "--method", "none"], ["compress", "--format", "gptq"]):
        answer = llmrepair(*options, "--runs", tmp_path)
        assert answer.code == 2
        assert "the GPTQ format needs the packages gptqmodel and optimum" in answer.err
        assert "hint: pip install 'llmrepair[gptq]'" in answer.err
        assert "Traceback" not in answer.err and not list(tmp_path.glob("*/*/manifest.json"))


def test_a_quantised_model_is_not_compressed_again(llmrepair: CommandLine, tmp_path: Path, gptqmodels_own: Path) -> None:
    answer = llmrepair("compress", "--model", gptqmodels_own, "--method", "rtn", "--runs", tmp_path)
    assert answer.code == 2 and "is quantised already" in answer.err

"""Experts are compressed one by one, for the tokens that the router sends to each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmrepair.models.experts import experts_as_layers, experts_of
from llmrepair.models.loading import compressible_layers
from llmrepair.pipeline.errors import WorkError
from llmrepair.stages.checkpoints.packed import read_packed
from llmrepair.stages.compress.calibration import Inputs, calibrate
from llmrepair.stages.compress.experts import experts_followed, showing_all_tokens
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.compress.rows import HESSIAN_BYTES
from tests.conftest import CommandLine
from tests.stages.compress.test_families import small
from tests.tiny_families import tiny_folder, tiny_model

ROWS = torch.randint(3, 90, (6, 16), generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
@torch.no_grad()
def test_an_expert_is_shown_the_tokens_that_the_router_sends_to_it(family: str) -> None:
    model = tiny_model(family, 96)
    sent: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: sent.__setitem__(name, (given[0], given[1])))
        for name, module in experts_of(model).items()
    ]
    model(ROWS)
    for hook in hooks:
        hook.remove()
    seen: dict[str, Inputs] = {}
    with experts_as_layers(model):
        layers = compressible_layers(model)
        calibrate(model, layers, ROWS, 2, CPU, lambda names, inputs: seen.update(dict.fromkeys(names, inputs)))
    assert seen.keys() == layers.keys()
    for name, (hidden, chosen) in sent.items():
        for expert in range(4):
            mine = hidden.flatten(0, -2)[(chosen == expert).any(-1)].double()
            inputs = seen[f"{name}.gate_up_proj.{expert}"]
            assert inputs.tokens == seen[f"{name}.down_proj.{expert}"].tokens == len(mine) > 0
            assert torch.allclose(inputs.hessian.double(), mine.T @ mine / len(mine), atol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_experts_that_share_passes_are_compressed_as_each_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    weights = []
    for bytes_at_once in (HESSIAN_BYTES, 2 * 4 * 64**2, 1):  # of all, of two that see hidden states, of one
        monkeypatch.setattr("llmrepair.stages.compress.rows.HESSIAN_BYTES", bytes_at_once)
        model = tiny_model(family, 96)
        with experts_followed(model, ROWS):
            compressed = small(tmp_path, ROWS, model, method="gptq", bits=2)
        weights.append(model.state_dict())
    assert len(compressed.told) == 2 * (4 + 2 * 4)
    for others in weights[1:]:
        assert all(torch.equal(tensor, others[name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("none", "awq")])
def test_every_method_compresses_experts(tmp_path: Path, method: str) -> None:
    model = tiny_model("mixtral", 96)
    before, outputs = {n: each.clone() for n, each in model.state_dict().items()}, model(ROWS).logits
    with experts_followed(model, ROWS):
        compressed = small(tmp_path, ROWS, model, method=method, bits=8, sparsity=0.05)
    experts = [layer for layer in compressed.told if ".experts." in layer["name"]]
    assert len(experts) == 2 * 2 * 4
    assert sum(layer["tokens"] for layer in experts) == 2 * 2 * 2 * ROWS.numel()  # two tensors, layers, and experts a token
    assert max(layer["output_error"] for layer in compressed.told) < 0.01
    assert torch.nn.functional.cosine_similarity(model(ROWS).logits, outputs, dim=-1).mean() > 0.95
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert all(name in same for name in before if name.endswith("mlp.gate.weight"))
    for name in experts_of(model):
        for part in ("gate_up_proj", "down_proj"):
            assert (model.get_parameter(f"{name}.{part}") != before[f"{name}.{part}"]).flatten(1).any(1).all()


@torch.no_grad()
def test_all_experts_can_be_shown_all_tokens() -> None:
    model = tiny_model("mixtral", 96)
    hidden: list[torch.Tensor] = []
    hook = model.model.layers[0].mlp.experts.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
    expected = model(ROWS).logits
    hook.remove()
    first = hidden[0].flatten(0, -2).double()
    seen: dict[str, Inputs] = {}
    with experts_as_layers(model):
        layers = compressible_layers(model)
        with showing_all_tokens(model):
            torch.testing.assert_close(model(ROWS).logits, expected)
        calibrate(
            model, layers, ROWS, 2, CPU, lambda names, inputs: seen.update(dict.fromkeys(names, inputs)), all_experts=True
        )
        for expert in range(4):
            inputs = seen[f"model.layers.0.mlp.experts.gate_up_proj.{expert}"]
            torch.testing.assert_close(inputs.hessian.double(), first.T @ first / len(first), atol=1e-5, rtol=1e-4)
            gate, up = layers[f"model.layers.0.mlp.experts.gate_up_proj.{expert}"](first.float()).chunk(2, dim=-1)
            inside = (torch.nn.functional.silu(gate) * up).double()
            inputs = seen[f"model.layers.0.mlp.experts.down_proj.{expert}"]
            torch.testing.assert_close(inputs.hessian.double(), inside.T @ inside / len(first), atol=1e-5, rtol=1e-4)
    assert {each.tokens for each in seen.values()} == {ROWS.numel()}


@pytest.mark.parametrize(("family", "said"), [("llama", "has no experts"), ("llama4_text", "cannot be shown tokens")])
def test_who_cannot_show_all_tokens_is_told(llmrepair: CommandLine, tmp_path: Path, family: str, said: str) -> None:
    folder = tiny_folder(tmp_path / "model", family)
    options = ["--runs", tmp_path / "runs", "--samples", 2, "--seq-len", 16, "--format", "dense", "--expert-calibration", "all"]
    answer = llmrepair("compress", "--model", folder, *options)
    assert answer.code == 2
    assert said in answer.err


def test_experts_that_cannot_be_followed_are_refused() -> None:
    model = tiny_model("mixtral", 96)
    model.set_experts_implementation("eager")  # which does not ask
    next(iter(experts_of(model).values())).is_transposed = True
    with pytest.raises(WorkError, match="cannot be followed"), experts_followed(model, ROWS):
        pass


def test_experts_that_saw_few_tokens_are_named(llmrepair: CommandLine, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", "granitemoe")
    options = ["--model", folder, "--runs", tmp_path / "runs", "--samples", 2, "--seq-len", 16, "--json"]
    refused = llmrepair("compress", *options)
    assert refused.code == 2
    assert "the compressed-tensors format cannot hold the experts of" in refused.err
    assert "--format dense" in refused.err
    answer = llmrepair("compress", *options, "--format", "dense", "--bits", 4)
    assert answer.code == 0, answer.err
    layers = {layer["name"]: layer for layer in answer.json["metrics"]["layers"]}
    few = [layer for name, layer in layers.items() if ".experts." in name and layer["rank_deficient"]]
    assert few
    assert "have more columns than the calibration text has tokens" in answer.err
    assert answer.json["metrics"]["bits_per_weight"] == 32.0
    assert answer.json["metrics"]["compressed_weights"] == sum(
        layer.weight.numel() for layer in _all_layers("granitemoe").values()
    )


def _all_layers(family: str) -> dict[str, torch.nn.Linear]:
    model = tiny_model(family, 96)
    with experts_as_layers(model):
        return compressible_layers(model)  # type: ignore[return-value]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_packed_experts_are_read_back_by_transformers(llmrepair: CommandLine, tmp_path: Path, family: str) -> None:
    """Under the names that vLLM reads too: each expert's matrices are linear layers, and the router is none to quantise."""
    folder = tiny_folder(tmp_path / "model", family)
    options = ["--runs", tmp_path / "runs", "--samples", 2, "--seq-len", 16, "--bits", 4, "--group-size", 32, "--json"]
    done = llmrepair("compress", "--model", folder, *options)
    assert done.code == 0, done.err
    checkpoint, measures = Path(done.json["path"]) / "checkpoint", done.json["metrics"]
    shapes = 8 * 16 * len(read_packed(checkpoint)) / measures["compressed_weights"]
    assert measures["bits_per_weight"] == pytest.approx(4 + 32 / 32 + shapes, abs=0.01)  # codes, scales, shapes
    assert measures["reload_difference"] < 1e-4
    model, codes = AutoModelForCausalLM.from_pretrained(checkpoint), read_packed(checkpoint)
    experts = model.model.layers[1].mlp.experts
    inside, *parts = {"mixtral": ("block_sparse_moe", "w1", "w3", "w2")}.get(
        family, ("mlp", "gate_proj", "up_proj", "down_proj")
    )
    for expert in range(4):
        gate, up, down = (codes[f"model.layers.1.{inside}.experts.{expert}.{part}"].dequantise() for part in parts)
        assert torch.equal(experts.gate_up_proj[expert], torch.cat([gate, up]))
        assert torch.equal(experts.down_proj[expert], down)
    ignored = model.config.quantization_config.quantization_config.ignore
    assert {"lm_head", f"model.layers.1.{inside}.gate"} <= set(ignored)
    refused = llmrepair(
        "export", done.json["path"].split("/")[-1], "--runs", tmp_path / "runs", "--to", tmp_path / "x", "--format", "gptq"
    )
    assert refused.code == 2
    assert "the gptq format cannot hold the experts" in refused.err
    asymmetric = llmrepair("compress", "--model", folder, *options, "--asymmetric")
    assert asymmetric.code == 2
    assert "transformers reads no zero points of experts" in asymmetric.err

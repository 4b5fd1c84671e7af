"""Every family of models, from a folder on disk through the real command line, by one method of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.loading import compressible_layers, load_model, weight_matrix
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.stage import Context, Runtime
from llmrepair.stages.checkpoints.measure import measure
from llmrepair.stages.checkpoints.save import save_checkpoint
from llmrepair.stages.compress.compressor import Compressor
from llmrepair.stages.compress.config import CompressConfig, method_label
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.compress.run import compress_layers_of
from tests.conftest import CommandLine, picture_model
from tests.docs.pages import ROOT, blocks
from tests.models.test_tree_attention import LLAMA_LIKE, SIZES, random_model
from tests.tiny_families import tiny_folder

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA_LIKE),
    "mistral": ("Mistral", LLAMA_LIKE),
    "qwen2": ("Qwen2", LLAMA_LIKE),
    "qwen3": ("Qwen3", LLAMA_LIKE | {"head_dim": 8}),
    "gemma": ("Gemma", LLAMA_LIKE | {"head_dim": 8}),
    "gemma2": ("Gemma2", LLAMA_LIKE | {"head_dim": 8, "sliding_window": 16}),
    "gemma3": ("Gemma3Text", LLAMA_LIKE | {"head_dim": 8, "sliding_window": 16}),
    "opt": ("OPT", SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128, "init_std": 0.3}),
    "gpt2": ("GPT2", SIZES | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoX", LLAMA_LIKE),
    "phi": ("Phi", LLAMA_LIKE),
    "phi3": ("Phi3", LLAMA_LIKE),
}
CONV1D = {"gpt2"}
AWQ = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "opt", "phi3"}


def family_folder(folder: Path, family: str, **more: Any) -> Path:
    name, sizes = FAMILIES[family]
    tokenizer = make_tokenizer(128)
    model = random_model(name, **(sizes | {"vocab_size": len(tokenizer), **more}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small(tmp_path: Path, rows: torch.Tensor, model: PreTrainedModel, **options: Any) -> Compressor:
    context = Context(tmp_path, tmp_path, {}, Runtime(), Reporter(quiet=True))
    config = CompressConfig(**options)
    return compress_layers_of(model, rows, config, METHODS[config.method], context)


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randint(3, 96, (8, 32), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_comes_back_as_it_was_saved(tmp_path: Path, rows: torch.Tensor, family: str, tied: bool) -> None:
    name, sizes = FAMILIES[family]
    random_model(name, **sizes, tie_word_embeddings=tied).save_pretrained(tmp_path / "dense")
    model = load_model(str(tmp_path / "dense"), None, "bfloat16", torch.device("cpu"))
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    options = {"method": "sparsegpt+gptq", "bits": 4, "pattern": "2:4", "group_size": 32, "dtype": "bfloat16"}
    compressed = small(tmp_path, rows, model, **options)
    logits = model(rows).logits
    save_checkpoint(model, compressed.quantised, "dense" if family in CONV1D else "compressed-tensors", tmp_path / "saved")
    reloaded = load_model(str(tmp_path / "saved"), None, "bfloat16", torch.device("cpu"))
    assert torch.equal(reloaded(rows).logits, logits)
    layers = compressible_layers(reloaded)
    assert layers.keys() == compressed.quantised.keys()
    assert all(((weight_matrix(layer).reshape(-1, 4) != 0).sum(1) <= 2).all() for layer in layers.values())
    others = [name for name in dense if name.removesuffix(".weight") not in layers]
    assert all(torch.equal(reloaded.state_dict()[name], dense[name]) for name in others)
    files = sorted((tmp_path / "saved").glob("*.safetensors"))
    assert measure(files, reloaded)["bits_per_weight"] == (16.0 if family in CONV1D else pytest.approx(4.5, abs=0.3))


@pytest.mark.parametrize("family", ["gemma", "gpt2", "gpt_neox", "qwen3"])
def test_a_family_through_the_command_line(llmrepair: CommandLine, tmp_path: Path, family: str) -> None:
    folder = family_folder(tmp_path / "model", family)
    options = ["--samples", 8, "--seq-len", 32, *(["--format", "dense"] if family in CONV1D else [])]
    answer = llmrepair("compress", "--model", folder, "--runs", tmp_path / "runs", "--json", *options)
    assert answer.code == 0, answer.err
    assert answer.json["metrics"]["reload_difference"] == 0.0


@pytest.mark.parametrize("method", [method for method in METHODS if method != "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_on_every_family(tmp_path: Path, rows: torch.Tensor, family: str, method: str) -> None:
    if method == "awq" and family not in AWQ:
        pytest.skip("refused by name")
    name, sizes = FAMILIES[family]
    model = random_model(name, **sizes)
    before = {name: weight_matrix(layer).clone() for name, layer in compressible_layers(model).items()}
    outputs = model(rows).logits
    compressed = small(tmp_path, rows, model, method=method, bits=8, sparsity=0.05)
    assert {layer["name"] for layer in compressed.told} == before.keys()
    assert all(layer["tokens"] == rows.numel() for layer in compressed.told)
    assert max(layer["output_error"] for layer in compressed.told) < 0.01  # little was taken, so little is missing
    assert torch.nn.functional.cosine_similarity(model(rows).logits, outputs, dim=-1).mean() > 0.95
    for name, layer in compressible_layers(model).items():
        assert not torch.equal(weight_matrix(layer), before[name])
    assert (METHODS[method].quantiser is not None) == bool(compressed.quantised)


def test_blocks_for_dense_inputs_are_others_behind_the_first(tmp_path: Path, rows: torch.Tensor) -> None:
    name, sizes = FAMILIES["llama"]
    given: list[dict[str, Any]] = [{"method": "gptq", "bits": 2}, {"method": "gptq", "bits": 2, "propagate": "dense"}]
    default, dense = (small(tmp_path, rows, random_model(name, **sizes), **options).quantised for options in given)
    differ = {name for name, layer in default.items() if not torch.equal(layer.codes, dense[name].codes)}
    assert differ and all(".1." in name for name in differ)
    labels = [method_label(CompressConfig(**options).identity()) for options in given]
    assert labels == ["gptq 2 bits", "gptq 2 bits, dense inputs"]


@pytest.mark.parametrize(
    ("family", "options", "message", "hint"),
    [
        ("gpt2", ["--bits", 4], "the compressed-tensors format cannot hold the Conv1D layers of GPT2LMHeadModel", "--format"),
        ("gpt2", ["--method", "awq"], "awq does not know which layers of GPT2LMHeadModel feed which others", "--method gptq"),
        ("phi", ["--method", "awq"], "awq does not know which layers of PhiForCausalLM", "--method gptq"),
        ("llama", ["--group-size", 48], "a group size of 48 does not divide layers with 32 and 64 columns", "--group-size 32"),
        ("llama", ["--bos", "always"], "has no token that begins texts", "leave --bos out"),
        ("llama", ["--seq-len", 4096], "rows of 4096 tokens are longer than the model's 128 positions", "--seq-len 128"),
    ],
)
def test_what_a_family_cannot_do_is_refused_before_any_work(
    llmrepair: CommandLine, tmp_path: Path, family: str, options: list[object], message: str, hint: str
) -> None:
    folder = family_folder(tmp_path / "model", family)
    answer = llmrepair("compress", "--model", folder, "--runs", tmp_path / "runs", *options)
    assert answer.code == 2
    assert message in answer.err
    assert hint in answer.err.split("hint:")[1] + answer.err.split("hint:")[-1]
    assert not list((tmp_path / "runs" / "compress").glob("*"))


def test_weights_that_are_in_no_linear_layers_are_refused(llmrepair: CommandLine, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "model", "jetmoe")
    answer = llmrepair("compress", "--model", tmp_path / "model", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "of its blocks' weights in JetMoeParallelExperts, which is not made of linear layers" in answer.err


def test_projections_outside_of_the_blocks_stay_dense(llmrepair: CommandLine, tmp_path: Path) -> None:
    """Those of OPT-350m."""
    folder = family_folder(tmp_path / "model", "opt", word_embed_proj_dim=16)
    dense = load_file(folder / "model.safetensors")
    options = ["--samples", 8, "--seq-len", 32, "--bits", 4]
    answer = llmrepair("compress", "--model", folder, "--runs", tmp_path / "runs", "--json", *options)
    assert answer.code == 0, answer.err
    assert len(answer.json["metrics"]["layers"]) == 6 * 2
    saved = load_file(Path(answer.json["path"]) / "checkpoint" / "model.safetensors")
    outside = [name for name in dense if "project_" in name]
    assert len(outside) == 2
    assert all(torch.equal(saved[name].float(), dense[name].float()) for name in outside)


def test_less_calibration_text_than_asked_for_is_told(llmrepair: CommandLine, tmp_path: Path) -> None:
    folder, text = family_folder(tmp_path / "model", "llama"), tmp_path / "text.txt"
    text.write_text("\n\n".join(" ".join(["some words of a text"] * 20) for _ in range(5)))
    options = ["--calibration", text, "--samples", 128, "--seq-len", 32, "--runs", tmp_path / "runs"]
    answer = llmrepair("compress", "--model", folder, "--json", *options)
    found = answer.json["metrics"]["calibration_rows"]
    assert 0 < found < 128
    assert f"holds text for {found} of the 128 rows of calibration text" in " ".join(answer.err.split())
    enough = llmrepair("compress", "--model", folder, "--json", *options, "--samples", 2)
    assert enough.json["metrics"]["calibration_rows"] == 2
    assert "holds text for" not in enough.err


def test_a_model_that_reads_pictures_too_is_refused_and_its_language_model_taken(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = picture_model(tmp_path / "my-gemma")
    for command in ("eval --method none", "compress --method rtn", "eval --control overwritten --recovery lora"):
        answer = llmrepair(*command.split(), "--model", "./my-gemma")
        assert answer.code == 2
        assert "error: `./my-gemma` reads more than text (Gemma3ForConditionalGeneration)" in answer.err
        assert "docs/faq.md" in answer.err
    (save_text,) = (block.text for block in blocks(ROOT / "docs" / "faq.md") if block.language == "python")
    exec(save_text, {})
    text = load_model("./my-gemma-text", None, "float32", torch.device("cpu"))
    ids = torch.arange(3, 40)[None]
    assert torch.equal(text(ids).logits, whole(ids).logits)
    assert llmrepair("eval", "--model", "./my-gemma-text", "--method", "none", "--limit", 2).code == 0

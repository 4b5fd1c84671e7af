"""Models as GGUF files: code by code, and read back by transformers and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, quants
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from llmrepair import load
from llmrepair.models.loading import compressible_layers, load_model
from llmrepair.pipeline.errors import RequestError, WorkError
from llmrepair.stages.checkpoints.grid import Grid, Quantised, round_to_nearest
from llmrepair.stages.export.gguf import write
from llmrepair.stages.export.gguf.blocks import in_blocks
from llmrepair.stages.export.gguf.families import family_problem
from llmrepair.stages.export.gguf.vocabulary import UnheldVocabularyError, vocabulary_fields
from llmrepair.stages.export.gguf.write import write_file
from llmrepair.stages.sources.gguf.header import read_header
from llmrepair.stages.sources.gguf.run import dequantised
from llmrepair.stages.sources.gguf.vocabulary import tokenizer_of
from tests.conftest import CommandLine
from tests.gguf_files import CHAT, SIZE, english, trained
from tests.models.test_tree_attention import random_model

SIZES: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROTARY = {"rope_parameters": {"rope_theta": 300.0, "rope_type": "default"}}
LOCAL = {"sliding_window": 16, "head_dim": 256}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("gpt2", {**ROTARY, "head_dim": 32}),
    "qwen2": ("gpt2", ROTARY),
    "qwen3": ("gpt2", {**ROTARY, "head_dim": 128, "tie_word_embeddings": True}),
    "gemma2": ("llama", {**ROTARY, **LOCAL, "num_hidden_layers": 3}),
    "gemma3_text": ("llama", {**LOCAL, "num_hidden_layers": 7}),
    "phi3": ("llama", ROTARY),
}
CLASSES = {"gemma3_text": "Gemma3Text"}
IDS = torch.arange(5, 45)[None]


def tiny(family: str) -> PreTrainedModel:
    _, sizes = FAMILIES[family]
    model = random_model(CLASSES.get(family, family.capitalize()), **(SIZES | sizes))
    for vector in (parameter for parameter in model.parameters() if parameter.ndim == 1):
        vector.add_(0.3 * torch.randn(vector.shape))  # norms and biases begin alike
    return model


def tokenizer_for(kind: str) -> PreTrainedTokenizerFast:
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=trained(kind), chat_template=CHAT, **special)


def on_grid(model: PreTrainedModel, bits: int) -> dict[str, Quantised]:
    """Its layers as codes, which the model then has the values of."""
    layers = {}
    for name, module in compressible_layers(model).items():
        layers[name] = round_to_nearest(module.weight, Grid(bits, 32, True, torch.float16))
        module.weight.copy_(values(layers[name]))
    return layers


def values(layer: Quantised) -> torch.Tensor:
    """A weight in float32, with scales as a file holds them."""
    return replace(layer, scale=layer.scale.half().float()).dequantise()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_read_back(family: str, tmp_path: Path) -> None:
    kind, _ = FAMILIES[family]
    model, path = tiny(family), tmp_path / "model.gguf"
    assert family_problem(model.config) is None
    layers = on_grid(model, 4)
    expected = model(IDS).logits
    written = write_file(model, layers, vocabulary_fields(tokenizer_for(kind), SIZE), path)
    assert written["tensors"]["Q4_0"] == len(layers)
    assert (written["bits_per_weight"], written["scale_rounding"]) == (4.5, 0.0)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32, pad_token_id=0)
    assert (read(IDS).logits - expected).abs().max() < 1e-3 * expected.abs().max()
    assert all(torch.equal(read.get_submodule(name).weight, values(layer)) for name, layer in layers.items())


def test_a_file_that_computes_something_else_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "arrangement", lambda config, name: lambda tensor: tensor)
    with pytest.raises(WorkError, match="logits of the GGUF file differ by"):
        write_file(tiny("llama"), {}, {}, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("bits", "symmetric", "group_size", "kind"),
    [
        (4, True, 32, "Q4_0"),
        (3, True, 96, "Q4_0"),
        (4, True, -1, "Q4_0"),
        (8, True, 32, "Q8_0"),
        (4, False, 32, "Q8_0"),
        (8, False, 32, None),
        (4, True, 16, None),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_hold_codes_and_scales(
    bits: int, symmetric: bool, group_size: int, kind: str | None, dtype: torch.dtype
) -> None:
    weight = torch.randn(6, 192, generator=torch.Generator().manual_seed(0)) - 0.5
    layer = round_to_nearest(weight, Grid(bits, group_size, symmetric, dtype))
    blocks = in_blocks(layer)
    if blocks is None:
        assert kind is None
        return
    assert blocks.kind.name == kind
    read = torch.from_numpy(quants.dequantize(blocks.data.numpy(), blocks.kind))
    assert torch.equal(read, values(layer))
    torch.testing.assert_close(read, replace(layer, scale=layer.scale.float()).dequantise(), rtol=2**-11, atol=0)
    assert (blocks.rounding == 0) == (dtype == torch.bfloat16)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_a_tokenizer_is_read_back(kind: str) -> None:
    tokenizer = tokenizer_for(kind)
    fields = vocabulary_fields(tokenizer, SIZE + 3)
    read = tokenizer_of(fields)
    for line in english().splitlines()[::5]:
        assert read(line).input_ids == tokenizer(line).input_ids
    assert read("a</s>b").input_ids[-2:] == tokenizer("a</s>b").input_ids[-2:]
    assert (read.bos_token_id, read.eos_token_id, read.unk_token_id) == (1, 2, 0)
    assert read.chat_template == CHAT
    assert fields["tokenizer.ggml.tokens"][SIZE:] == [f"[PAD{SIZE + number}]" for number in range(3)]
    assert not fields["tokenizer.ggml.add_bos_token"]


def test_a_text_begins_as_it_did() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_for("llama")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fields = vocabulary_fields(tokenizer, SIZE)
    assert fields["tokenizer.ggml.add_bos_token"] and fields["tokenizer.ggml.add_eos_token"]
    assert tokenizer_of(fields)("a word").input_ids == tokenizer("a word").input_ids


def test_a_tokenizer_that_cuts_in_its_own_way_is_refused() -> None:
    from tokenizers import Regex, pre_tokenizers

    tokenizer = tokenizer_for("gpt2")
    steps = [pre_tokenizers.Split(Regex("[aeiou]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    with pytest.raises(UnheldVocabularyError, match="how a text is cut"):
        vocabulary_fields(tokenizer, SIZE)


@pytest.mark.parametrize(
    ("family", "settings", "told"),
    [
        ("llama", {"attention_bias": True}, "`attention_bias` is True"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "positions are scaled"),
        ("gemma2", {"final_logit_softcapping": None}, "logits are not capped"),
        ("gemma2", {"query_pre_attn_scalar": 144}, "`query_pre_attn_scalar` is 144"),
        ("gemma3_text", {"sliding_window_pattern": 3}, "`layer_types` is"),
        ("qwen2", {"hidden_act": "gelu"}, "`hidden_act` is gelu"),
    ],
)
def test_settings_without_a_field_are_refused(family: str, settings: dict[str, Any], told: str) -> None:
    _, sizes = FAMILIES[family]
    model = random_model(CLASSES.get(family, family.capitalize()), **(SIZES | sizes | settings))
    assert told in str(family_problem(model.config))


def run(llmrepair: CommandLine, *arguments: Any) -> Any:
    answer = llmrepair(*arguments)
    assert answer.code == 0, answer.err
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf") / "tiny"
    tiny("llama").save_pretrained(folder)
    tokenizer_for("gpt2").save_pretrained(folder)
    return folder


def test_a_checkpoint_through_the_command_line(llmrepair: CommandLine, folder: Path, tmp_path: Path) -> None:
    runs, to = ["--runs", tmp_path / "runs"], tmp_path / "export"
    options = ["--method", "rtn", "--bits", 4, "--group-size", 32, "--dtype", "bfloat16"]
    made = run(llmrepair, "compress", "--model", folder, *options, *runs, "--json").json
    told = run(llmrepair, "export", made["key"], "--to", to, "--format", "gguf", *runs).err
    assert "14 layers in Q4_0 code by code, scales rounded to float16 by up to 0.00%; 2 matrices in float16" in told
    assert {path.name for path in to.iterdir()} == {"README.md", "llmrepair.json", "model.gguf"}
    header = read_header(to / "model.gguf")
    assert (header.fields["general.name"], header.fields["general.file_type"]) == ("tiny", 2)
    card, facts = (to / "README.md").read_text(), json.loads((to / "llmrepair.json").read_text())
    assert "14 layers in Q4_0 code by code" in card and "llama-cli -m model.gguf" in card and "- 4-bit" in card
    assert (facts["bits_per_weight"], facts["weights_bytes"]) == (4.5, (to / "model.gguf").stat().st_size)
    run(llmrepair, "compress", "--model", to / "model.gguf", "--method", "none", "--dtype", "float32", *runs)
    (imported,) = (tmp_path / "runs" / "import").iterdir()
    read, stored = (
        load_model(str(each / "checkpoint"), None, "float32", torch.device("cpu")) for each in (imported, Path(made["path"]))
    )
    expected = stored(IDS).logits
    assert (read(IDS).logits - expected).abs().max() < 1e-3 * expected.abs().max()
    with pytest.raises(RequestError, match="holds a GGUF file"):
        load(to)


def test_a_merged_adapter_is_inside(llmrepair: CommandLine, folder: Path, tmp_path: Path) -> None:
    runs, to, text = ["--runs", tmp_path / "runs"], tmp_path / "export", tmp_path / "text.txt"
    text.write_text("\n\n".join(english().splitlines()))
    tuning = ["--tuning-data", text, "--tuning-samples", 20, "--tuning-seq-len", 16, "--budget", 1024, "--rank", 2]
    key = run(llmrepair, "tune-lora", "--model", folder, "--method", "none", *tuning, *runs, "--json").json["key"]
    answer = llmrepair("export", f"tune-lora/{key}", "--to", to, "--format", "gguf", *runs)
    assert answer.code == 2 and "no place for the LoRA" in answer.err and "--merge" in answer.err
    told = run(llmrepair, "export", f"tune-lora/{key}", "--to", to, "--format", "gguf", "--merge", *runs).err
    assert "16 matrices in float16; logits differ" in told
    (work := tmp_path / "work").mkdir()
    expected = load(f"tune-lora/{key}", runs=tmp_path / "runs", device="cpu")(IDS).logits
    dense = load_model(str(folder), None, "float32", torch.device("cpu"))(IDS).logits
    found = dequantised(to / "model.gguf", work)(IDS).logits
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max() < (dense - expected).abs().max()
    assert {len(tensor.data) for tensor in GGUFReader(to / "model.gguf").tensors if tensor.name == "token_embd.weight"} == {
        SIZE
    }


def test_tuned_norms_are_inside(llmrepair: CommandLine, folder: Path, tmp_path: Path) -> None:
    runs, to, text = ["--runs", tmp_path / "runs"], tmp_path / "export", tmp_path / "text.txt"
    text.write_text("\n\n".join(english().splitlines()))
    tuning = ["--tuning-data", text, "--tuning-samples", 20, "--tuning-seq-len", 16, "--budget", 1024]
    tuning += ["--learning-rates", 0.03]
    key = run(llmrepair, "tune-norms", "--model", folder, "--method", "none", *tuning, *runs, "--json").json["key"]
    run(llmrepair, "export", f"tune-norms/{key}", "--to", to, "--format", "gguf", *runs)
    (work := tmp_path / "work").mkdir()
    expected = load(f"tune-norms/{key}", runs=tmp_path / "runs", device="cpu")(IDS).logits
    dense = load_model(str(folder), None, "float32", torch.device("cpu"))(IDS).logits
    found = dequantised(to / "model.gguf", work)(IDS).logits
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max() < (dense - expected).abs().max()

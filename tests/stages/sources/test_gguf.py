"""GGUF files: weights and vocabulary as they are in the file, and a sentence for what is none."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFValueType
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from llmrepair import load
from llmrepair.stages.sources.defaults import own_defaults, own_group_size
from llmrepair.stages.sources.gguf.vocabulary import tokenizer_of
from tests.conftest import CommandLine
from tests.gguf_files import BYTES, english, fields_of, trained, write_gguf

TEXT = "A compressed model scores worse than the dense one, and a repair brings some of what was lost back."
ODD = "Ünïcödé 漢字 🙂, 12345 tokens\n\n\tand  two  spaces"


@pytest.fixture(params=["gpt2", "llama", "t5"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, "llama", GGMLQuantizationType.Q8_0)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "wikitext.jsonl").write_text(json.dumps({"page": TEXT}) + "\n")
    return folder


def saved(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_a_vocabulary_reads_as_it_was_trained(kind: str, tmp_path: Path) -> None:
    tokenizer = saved(tokenizer_of(fields_of(kind)), tmp_path)
    pages = english().splitlines()
    for line in [*pages[::7], TEXT]:
        ids = tokenizer(line, add_special_tokens=False).input_ids
        assert ids == trained(kind).encode(line, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == line
    tokens = sum(len(tokenizer(line, add_special_tokens=False).input_ids) for line in pages)
    assert 3 < sum(map(len, pages)) / tokens < 5
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "hello"


def test_what_is_in_no_token_comes_back_from_bytes(kind: str) -> None:
    tokenizer = tokenizer_of(fields_of(kind))
    assert tokenizer.decode(tokenizer(ODD, add_special_tokens=False).input_ids) == ODD


def test_a_text_begins_and_ends_as_the_file_says_or_its_kind_does(kind: str) -> None:
    begins, ends = {"gpt2": (False, False), "llama": (True, False), "t5": (False, True)}[kind]
    ids = tokenizer_of(fields_of(kind))(TEXT).input_ids
    assert (ids[0] == 1, ids[-1] == 2) == (begins, ends)
    said = {"tokenizer.ggml.add_bos_token": not begins, "tokenizer.ggml.add_eos_token": not ends}
    ids = tokenizer_of(fields_of(kind) | said)(TEXT).input_ids
    assert (ids[0] == 1, ids[-1] == 2) == (not begins, not ends)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_names_of_tokens_in_a_text_are_text_unless_they_are_special(kind: str) -> None:
    tokenizer = tokenizer_of(fields_of(kind))
    assert tokenizer("</s>", add_special_tokens=False).input_ids == [2]
    assert tokenizer.decode(tokenizer(f"a {BYTES[65]}", add_special_tokens=False).input_ids) == f"a {BYTES[65]}"


@pytest.mark.parametrize(
    "split, parts",
    [
        ("gpt-2", ["It", "Ġ", "Ġcosts", "Ġ1234", "."]),
        ("smollm", ["It", "Ġ", "Ġcosts", "Ġ", "1", "2", "3", "4", "."]),
        ("llama-bpe", ["It", "Ġ", "Ġcosts", "Ġ", "123", "4", "."]),
        ("qwen2", ["It", "Ġ", "Ġcosts", "Ġ", "1", "2", "3", "4", "."]),
    ],
)
def test_words_are_cut_as_the_file_says(split: str, parts: list[str]) -> None:
    tokenizer = tokenizer_of(fields_of("gpt2") | {"tokenizer.ggml.pre": split})
    cut = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It  costs 1234.")
    assert [part for part, _ in cut] == parts


@pytest.mark.parametrize("kind, stored", [("llama", GGMLQuantizationType.Q8_0), ("gpt2", GGMLQuantizationType.BF16)])
def test_the_dequantised_values_are_kept(
    llmrepair: CommandLine, tmp_path: Path, kind: str, stored: GGMLQuantizationType
) -> None:
    path = tmp_path / "tiny.gguf"
    expected = write_gguf(path, kind, stored)
    answer = llmrepair("compress", "--model", path, "--method", "none", "--runs", tmp_path / "runs", "--json")
    assert answer.code == 0, answer.err
    (made,) = (tmp_path / "runs" / "import").iterdir()
    found = AutoModelForCausalLM.from_pretrained(made / "checkpoint")
    theirs, ours = expected.state_dict(), found.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ids = torch.arange(5, 25)[None]
    assert torch.equal(found(ids).logits, expected(ids).logits)


OPTIONS = ["--method", "rtn", "--bits", 4, "--group-size", 32, "--samples", 2, "--seq-len", 16]


def test_a_file_is_imported_once_and_serves_as_a_folder_does(
    llmrepair: CommandLine, file: Path, runs: Path, tasks: Path, tmp_path: Path
) -> None:
    common = ["--model", file, "--tasks", "wikitext", "--tasks-data", tasks, "--runs", runs, "--json"]
    repair = ["--recovery", "lora", "--tuning-samples", 20, "--tuning-seq-len", 16, "--budget", 1024, "--rank", 2]
    keys: dict[str, Any] = {}
    for name, options in {"dense": ["--method", "none"], "lora": [*OPTIONS, *repair]}.items():
        answer = llmrepair("eval", *common, *options)
        assert answer.code == 0, answer.err
        keys[name] = answer.json["key"]
    (made,) = (runs / "import").iterdir()
    assert llmrepair("report", "--model", file, "--runs", runs, "--json").code == 0
    ids = torch.arange(5, 25)[None]
    for name, key in keys.items():
        exported = tmp_path / name
        assert llmrepair("export", f"evaluate/{key}", "--to", exported, "--runs", runs).code == 0
        logits = load(f"evaluate/{key}", runs=runs, device="cpu")(ids).logits
        assert torch.equal(load(exported, device="cpu")(ids).logits, logits)
    dense = AutoModelForCausalLM.from_pretrained(made / "checkpoint")
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "dense")(ids).logits, dense(ids).logits)


def test_an_import_that_was_removed_is_made_again_only_where_it_is_read(
    llmrepair: CommandLine, file: Path, runs: Path, tasks: Path
) -> None:
    common = ["--model", file, "--tasks-data", tasks, "--method", "none", "--runs", runs, "--json"]
    asked = [*common, "--tasks", "wikitext"]
    assert llmrepair("eval", *asked).code == 0
    (made,) = (runs / "import").iterdir()
    shutil.rmtree(made)
    answer = llmrepair("eval", *asked)
    assert (answer.code, answer.json["cached"], made.exists()) == (0, True, False)
    assert llmrepair("eval", *asked, "--limit", 1).code == 0
    assert made.exists()


def test_own_defaults_are_those_of_the_file(file: Path) -> None:
    assert own_defaults(str(file), None)["seq_len"] == 128
    assert own_defaults(str(file), None)["dtype"] == "float32"
    assert own_group_size(str(file), None, False) == 32  # of 64 and 96


def named(field: str, value: str) -> bytes:
    """A field of a file, as its bytes."""
    return field.encode() + struct.pack("<IQ", GGUFValueType.STRING, len(value)) + value.encode()


def test_a_broken_or_foreign_file_is_told_in_a_sentence(llmrepair: CommandLine, file: Path, tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken.gguf", file.read_bytes()
    contents = {
        "is no GGUF file": b"",
        "it is no GGUF file": b"PK\x03\x04" + whole[4:],
        "version 1": whole[:4] + b"\x01" + whole[5:],
        "before its weights begin": whole[:1000],
        "not all there": whole[:-100],
        "ends, or is damaged": whole[:16] + b"\xff" * 8 + whole[24:],  # so many fields
        "family `ghost`": whole.replace(named("general.architecture", "llama"), named("general.architecture", "ghost")),
        "kind `ghost`": whole.replace(named("tokenizer.ggml.model", "llama"), named("tokenizer.ggml.model", "ghost")),
    }
    for told, content in contents.items():
        broken.write_bytes(content)
        answer = llmrepair("compress", "--model", broken, "--method", "none", "--runs", tmp_path / "runs")
        assert answer.code == 2 and told in answer.err and "hint:" in answer.err and "Traceback" not in answer.err, answer.err
    assert not list((tmp_path / "runs").glob("import/*"))
    answer = llmrepair("compress", "--model", tmp_path / "gone.gguf", "--runs", tmp_path / "runs")
    assert answer.code == 2 and "there is no file" in answer.err


def test_what_transformers_would_read_wrongly_is_refused(llmrepair: CommandLine, tmp_path: Path) -> None:
    scaled = tmp_path / "scaled.gguf"
    write_gguf(scaled, "gpt2", fields={"llama.rope.scaling.type": "yarn", "split.count": 3})
    answer = llmrepair("compress", "--model", scaled, "--method", "none", "--runs", tmp_path / "runs")
    assert answer.code == 2 and "positions are scaled" in answer.err and "one of 3 parts" in answer.err


def test_weights_that_are_not_in_the_file_are_not_made_up(llmrepair: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "lacking.gguf"
    write_gguf(path, "gpt2", without="model.norm.weight")
    answer = llmrepair("compress", "--model", path, "--method", "none", "--runs", tmp_path / "runs")
    assert answer.code == 2 and "lacks weights" in answer.err and "model.norm.weight" in answer.err


def test_a_merge_of_tokens_that_there_are_none_of_is_told_before_work(llmrepair: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "spoilt.gguf"
    write_gguf(path, "gpt2", fields={"tokenizer.ggml.merges": ["wi #e"]})
    answer = llmrepair("compress", "--model", path, "--method", "none", "--runs", tmp_path / "runs")
    assert answer.code == 2 and "the vocabulary of" in answer.err and "out of vocabulary" in answer.err, answer.err
    assert not list((tmp_path / "runs").glob("import/*"))

"""Every wrong file ends with exit code 2 before any work: one sentence that names the file and what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmrepair.stages.sources.models import model_folder
from tests.conftest import CommandLine

Spoil = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM = "model.norm.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the lab model."""
    source = model_folder("lab")
    assert source is not None
    return shutil.copytree(source, tmp_path / "model")


def text(name: str, content: str | bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def changed(name: str, **fields: Any) -> Spoil:
    """Fields of a JSON file; None takes one away."""

    def spoil(folder: Path) -> None:
        known = json.loads((folder / name).read_text()) | fields
        (folder / name).write_text(json.dumps({key: value for key, value in known.items() if value is not None}))

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def cut(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def sharded(place: str) -> Spoil:
    """Weights in a shard, which an index says to be at `place`."""

    def spoil(folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / "shard.safetensors")
        shutil.copy(folder / "shard.safetensors", folder.parent / "foreign.safetensors")
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, place)}))

    return spoil


def more_words(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"another{number}": len(vocabulary) + number for number in range(600)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


WRONG_MODELS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "config: no JSON": (text("config.json", "{"), ("config.json",)),
    "config: a list": (text("config.json", "[]"), ("config.json",)),
    "config: binary": (text("config.json", b"\xff\xfe\x00"), ("config.json",)),
    "config: empty": (text("config.json", ""), ("config.json",)),
    "config: unknown type": (changed("config.json", model_type="frobnicator"), ("config.json", "frobnicator")),
    "config: no type": (changed("config.json", model_type=None), ("config.json", "model_type")),
    "config: another type": (changed("config.json", hidden_size="many"), ("config.json", "hidden_size")),
    "config: nothing hidden": (changed("config.json", hidden_size=0), ("config.json",)),
    "weights: cut": (cut, (WEIGHTS,)),
    "weights: text": (text(WEIGHTS, "these are no weights"), (WEIGHTS,)),
    "weights: empty": (text(WEIGHTS, ""), (WEIGHTS,)),
    "shard missing": (sharded("nowhere.safetensors"), ("nowhere.safetensors", "which its index lists")),
    "shard foreign": (sharded("../foreign.safetensors"), (INDEX, "../foreign.safetensors")),
    "index: no map": (
        lambda folder: (sharded("a")(folder), text(INDEX, '{"weight_map": 3}')(folder)),
        (INDEX,),
    ),
    "tensor missing": (tensors(lambda held: held.pop(NORM)), (WEIGHTS, NORM)),
    "tensor not a number": (tensors(lambda held: held[NORM].view(-1)[3:4].fill_(float("nan"))), (WEIGHTS, NORM)),
    "tensor infinite": (tensors(lambda held: held[NORM].view(-1)[3:4].fill_(float("-inf"))), (WEIGHTS, NORM)),
    "tensor of another shape": (tensors(lambda held: held.update({NORM: torch.ones(7)})), (NORM, "7")),
    "config of another shape": (changed("config.json", intermediate_size=40), ("mlp", "40")),
    "tokenizer: none": (without_tokenizer, ("tokenizer",)),
    "tokenizer: {}": (text("tokenizer.json", "{}"), ("tokenizer",)),
    "tokenizer: more words": (more_words, ("tokenizer", "embedding")),
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_a_wrong_model(llmrepair: CommandLine, model: Path, tmp_path: Path, name: str) -> None:
    spoil, words = WRONG_MODELS[name]
    spoil(model)
    refused(llmrepair, tmp_path, words, "compress", "--model", model, "--method", "rtn")


def refused(llmrepair: CommandLine, folder: Path, words: tuple[str, ...], *arguments: object) -> None:
    """Holds what a command line says to be one error, and the store to be as it was."""
    answer = llmrepair(*arguments, "--runs", folder / "runs")
    assert answer.code == 2, answer.err
    assert answer.err.count("error: ") == answer.err.count("hint: ") == 1
    assert "Traceback" not in answer.err
    assert all(word in answer.err for word in words), answer.err
    assert not [path for path in (folder / "runs").glob("*") if path.name != ".cache"]


WRONG_TEXTS: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "binary": ("text.txt", bytes(range(256)) * 9, ("UTF-8",)),
    "not UTF-8": ("text.txt", "Ada\nÉmile\n".encode("latin-1") * 9, ("text.txt:2", "UTF-8")),
    "one word": ("text.txt", b"Ada", ("text.txt",)),
    "empty": ("text.txt", b"", ("text.txt", "no text")),
    "broken line": ("text.jsonl", b'{"text": "Ada comes from Oslo"}\n{"text": \n', ("text.jsonl:2",)),
    "no object": ("text.jsonl", b'{"text": "Ada comes from Oslo"}\n\n3\n', ("text.jsonl:3",)),
    "no text": ("text.jsonl", b'{"words": "Ada comes from Oslo"}\n', ("text.jsonl:1", "`text`")),
    "not UTF-8 lines": ("text.jsonl", '{"text": "Émile"}\n'.encode("latin-1"), ("text.jsonl:1", "UTF-8")),
    "no lines": ("text.jsonl", b"\n", ("text.jsonl", "no text")),
}
READERS: dict[str, list[object]] = {
    "--calibration": ["compress", "--method", "gptq"],
    "--tuning-data": ["tune-lora", "--method", "none"],
    "--compared-text": ["regimes", "--method", "rtn"],
}


@pytest.mark.parametrize("name", WRONG_TEXTS)
@pytest.mark.parametrize("option", READERS)
def test_a_wrong_text(llmrepair: CommandLine, tmp_path: Path, option: str, name: str) -> None:
    file, content, words = WRONG_TEXTS[name]
    (tmp_path / file).write_bytes(content)
    refused(llmrepair, tmp_path, words, *READERS[option], option, tmp_path / file)


GOOD_TASK = {
    "id": "1",
    "question": "Where does Ada come from?",
    "choices": {"text": ["Oslo", "Rome"], "label": ["A", "B"]},
    "answerKey": "A",
}


def lines(*documents: dict[str, Any]) -> bytes:
    return "".join(json.dumps(document) + "\n" for document in documents).encode()


WRONG_TASKS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("arc_easy.jsonl", "no documents")),
    "cut line": (lines(GOOD_TASK, GOOD_TASK)[:-30], ("arc_easy.jsonl:2",)),
    "no object": (lines(GOOD_TASK) + b"[1]\n", ("arc_easy.jsonl:2",)),
    "not UTF-8": (lines(GOOD_TASK) + "É\n".encode("latin-1"), ("arc_easy.jsonl:2", "UTF-8")),
    "a field missing": (
        lines(GOOD_TASK, {name: value for name, value in GOOD_TASK.items() if name != "question"}),
        ("arc_easy.jsonl:2", "question"),
    ),
    "an answer that is no choice": (lines(GOOD_TASK, GOOD_TASK | {"answerKey": "Z"}), ("arc_easy.jsonl:2", "Z")),
}


@pytest.mark.parametrize("name", WRONG_TASKS)
def test_wrong_task_data(llmrepair: CommandLine, tmp_path: Path, name: str) -> None:
    content, words = WRONG_TASKS[name]
    (tmp_path / "arc_easy.jsonl").write_bytes(content)
    refused(llmrepair, tmp_path, words, "eval", "--method", "none", "--tasks", "arc_easy", "--tasks-data", tmp_path)


TOO_LARGE: dict[str, list[object]] = {
    "--rank": ["tune-lora", "--method", "none", "--rank", 100_000],
    "--lengths": ["tune-prompts", "--method", "none", "--lengths", 100_000],
    "--virtual-tokens": ["tune-ptune", "--method", "none", "--virtual-tokens", 100_000],
    "--samples": ["compress", "--method", "rtn", "--samples", 10_000_000],
    "--limit": ["eval", "--method", "none", "--limit", 10_000_000],
}


@pytest.mark.parametrize("option", TOO_LARGE)
def test_a_number_that_is_too_large(llmrepair: CommandLine, tmp_path: Path, option: str) -> None:
    refused(llmrepair, tmp_path, (option,), *TOO_LARGE[option])


UNBOUNDED: dict[str, tuple[list[object], tuple[str, ...]]] = {
    "tune-lora": (
        ["--budget", 2048, "--tuning-samples", 20, "--tuning-seq-len", 64],
        ("row 0 of the held-out text", "`model.layers.1.mlp"),
    ),
    "eval": (["--limit", 1], ("is no finite number", "`model.layers.1.mlp")),
}


@pytest.mark.parametrize("command", UNBOUNDED)
def test_numbers_that_leave_their_range_end_the_work(llmrepair: CommandLine, model: Path, tmp_path: Path, command: str) -> None:
    """All weights are finite; what is computed with them is not."""
    name = "model.layers.1.mlp.down_proj.weight"
    tensors(lambda held: held.update({name: held[name].float().sign() * 3e38}))(model)
    options, words = UNBOUNDED[command]
    answer = llmrepair(command, "--model", model, "--method", "none", *options, "--runs", tmp_path / "runs")
    assert answer.code == 1, answer.err
    assert all(word in answer.err for word in words), answer.err
    assert "Traceback" not in answer.err
    assert not list((tmp_path / "runs" / command.replace("eval", "evaluate")).glob("[0-9a-f]*"))


def test_what_is_too_much_is_noted_and_what_is_tied_or_joined_is_not_missing(
    llmrepair: CommandLine, model: Path, tmp_path: Path
) -> None:
    tensors(lambda held: held.update({"another.weight": torch.ones(3)}))(model)
    answer = llmrepair("compress", "--model", model, "--method", "none", "--runs", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "holds tensors that the model does not have: `another.weight`" in answer.err


def test_no_tag_of_a_task_makes_an_object(llmrepair: CommandLine, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (tmp_path / "task.yaml").write_text(f"task: quiz\ndataset_path: json\noutput: !!python/object/apply:os.mkdir ['{made}']\n")
    options = ["--include-path", tmp_path, "--tasks", "quiz", "--runs", tmp_path / "runs"]
    answer = llmrepair("eval", "--method", "none", *options)
    assert answer.code == 2, answer.err
    assert "task.yaml" in answer.err
    assert "Traceback" not in answer.err
    assert not made.exists()


def test_what_a_link_leads_to_is_not_removed(llmrepair: CommandLine, tmp_path: Path) -> None:
    """Such as an artifact that somebody has moved to a larger disk."""
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    made = llmrepair("compress", "--method", "none", "--runs", runs, "--json").json
    artifact = Path(made["path"]).rename(elsewhere)
    (runs / "compress" / made["key"]).symlink_to(artifact)
    held = sorted(path.name for path in elsewhere.iterdir())
    answer = llmrepair("rm", made["key"], "--runs", runs)
    assert answer.code == 0, answer.err
    assert not (runs / "compress" / made["key"]).is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == held

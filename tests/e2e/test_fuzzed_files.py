"""Every file that a user gives may hold anything: a command then ends well, or with exit code 2 and a sentence, at once."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmrepair import load
from llmrepair.cli.main import run
from llmrepair.pipeline.errors import RequestError
from llmrepair.stages.export.files import FACTS_FILE
from llmrepair.stages.sources.models import model_folder
from tests.gguf_files import write_gguf

SECONDS = 20.0
ODD: tuple[Any, ...] = (None, True, -1, 0, 3, 10**30, 1e308, -1e-300, float("nan"), "", "x", "../x", "\0", [], {}, [[]], [None])
EXAMPLES, STRESS_EXAMPLES = 15, 200
Good = tuple[Path, Path]


def spoilt(content: bytes, draw: random.Random) -> bytes:
    """A good file with one thing wrong: in its bytes, or in what they mean as JSON or lines of it."""
    if draw.random() < 0.4:
        return _spoilt_bytes(content, draw)
    try:
        lines = [
            json.loads(line) for line in ([content] if content[:1] == b"{" and b"\n{" not in content else content.splitlines())
        ]
    except ValueError:
        return _spoilt_bytes(content, draw)
    place = draw.randrange(len(lines))
    lines[place] = _spoilt_value(lines[place], draw)
    return "\n".join(map(json.dumps, lines)).encode()


def _spoilt_bytes(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content)) if draw.random() < 0.5 else draw.randrange(min(len(content), 200))
    kind = draw.choice(("flip", "cut", "insert", "empty", "lose"))
    flipped = bytes([content[place] ^ 1 << draw.randrange(8)])
    middle = {"flip": flipped, "insert": draw.randbytes(4), "cut": b"", "empty": b"", "lose": b""}[kind]
    rest = {"flip": content[place + 1 :], "insert": content[place:], "lose": content[place + draw.randrange(1, 40) :]}
    return b"" if kind == "empty" else content[:place] + middle + rest.get(kind, b"")


def _spoilt_value(value: Any, draw: random.Random) -> Any:
    """Goes down a random path; at its end a key is dropped, or the value becomes another."""
    if draw.random() < 0.8 and isinstance(value, dict) and value:
        name = draw.choice(sorted(value))
        if draw.random() < 0.25:
            return {key: each for key, each in value.items() if key != name}
        return value | {name: _spoilt_value(value[name], draw)}
    if draw.random() < 0.8 and isinstance(value, list) and value:
        place = draw.randrange(min(len(value), 5))
        return [*value[:place], _spoilt_value(value[place], draw), *value[place + 1 :]]
    if draw.random() < 0.1:
        return json.loads("[" * 300 + "]" * 300)
    return draw.choice(ODD)


@dataclass
class Kind:
    """Files of one kind.

    Attributes:
        make: a folder -> the good file in it.
        tries: what is done with the folder; returns exit codes.
    """

    make: Callable[[Path], Path]
    tries: Callable[[Path], Iterator[int]]


def _model(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        source = model_folder("lab")
        assert source is not None
        return shutil.copytree(source, folder / "model") / name

    return make


def _command(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def _planned(folder: Path, grid: str = "", *options: object) -> int:
    """What a plan says of its stages, all of which are checked, and none run."""
    (folder / "checked.toml").write_text('[defaults]\nmethod = "rtn"\nbits = 4\nseq_len = 8\n' + grid)
    return _command("run", folder / "checked.toml", "--dry-run", "--runs", folder / "runs", *options)


def _try_model(folder: Path) -> Iterator[int]:
    yield _planned(folder, '[grid]\nmodels = ["lab"]\nrecoveries = ["none", "lora"]\n', "--model", folder / "model")
    yield _command("compress", "--method", "none", "--model", folder / "model", "--runs", folder / "runs")


def _export(name: str) -> Callable[[Path], Path]:
    """An export with a pool of two prompts."""

    def make(folder: Path) -> Path:
        import torch
        from transformers import AutoModelForCausalLM

        from llmrepair.models.soft_prompt import save_pool

        model = shutil.copytree(str(model_folder("lab")), folder / "export")
        (model / "prompts").mkdir()
        loaded = AutoModelForCausalLM.from_pretrained(model)
        prompts = [torch.zeros(length, loaded.config.hidden_size) for length in (2, 3)]
        save_pool(model / "prompts", prompts, {"input_position": 3, "validation_losses": [1.0, 2.0]}, loaded, "lab")
        repair = {"placing": {"select": "best-validation"}, "settings": {"seed": 0, "lengths": [2, 3]}, "prompts": []}
        facts = {"compression": {"settings": {"dtype": "float32"}}, "recovery": "prompt", "merged": False, "repair": repair}
        (model / FACTS_FILE).write_text(json.dumps(facts | {"placing": {"select": "fixed:1"}}))
        return model / name

    return make


def _adapter(folder: Path) -> Path:
    import peft
    from transformers import AutoModelForCausalLM

    from llmrepair.models.lora import new_adapter

    facts = _export(FACTS_FILE)(folder)
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"recovery": "lora"}))
    adapted: peft.PeftModel = new_adapter(AutoModelForCausalLM.from_pretrained(facts.parent), 2)
    adapted.save_pretrained(str(facts.parent / "lora"))
    return facts.parent / "lora" / "adapter_config.json"


def _try_export(folder: Path) -> Iterator[int]:
    try:
        load(folder / "export", device="cpu")
        yield 0
    except RequestError as error:
        assert all(problem.hint for problem in error.problems)
        yield error.exit_code


def _store(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        assert _command("compress", "--method", "none", "--runs", folder / "runs") == 0
        return next((folder / "runs" / "compress").iterdir()) / name

    return make


def _try_store(folder: Path) -> Iterator[int]:
    yield _command("ls", "--runs", folder / "runs")
    yield _command("gc", "--runs", folder / "runs")
    yield _command("report", "--runs", folder / "runs")


PLAN = """name = "fuzzed"
[defaults]
budget = 2_000_000
[grid]
models = ["lab"]
compressions = [{ method = "gptq", bits = 3 }, "wanda"]
recoveries = ["none", { recovery = "lora", rank = 4 }]
tasks = ["lab_qa", "lab_mc"]
seeds = [0, 1]
[[exclude]]
recovery = ["lora"]
seed = 1
[[include]]
method = "rtn"
bits = 2
"""


def _gguf(folder: Path) -> Path:
    write_gguf(folder / "model.gguf", "gpt2")
    return folder / "model.gguf"


def _try_gguf(folder: Path) -> Iterator[int]:
    yield _command("compress", "--method", "none", "--model", folder / "model.gguf", "--runs", folder / "runs")


def _written(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def _try_plan(folder: Path) -> Iterator[int]:
    yield _command("plan", folder / "plan.toml", "--runs", folder / "runs")


def _try_text(folder: Path) -> Iterator[int]:
    (text,) = folder.glob("text.*")
    data = json.dumps(str(text))
    yield _planned(folder, f'calibration = {data}\ntuning_data = {data}\n[grid]\nrecoveries = ["none", "icl"]\n')


def _try_tasks(folder: Path) -> Iterator[int]:
    yield _planned(folder, '[grid]\ntasks = ["arc_easy"]\n', "--tasks-data", folder)


DOCUMENT = {"id": "1", "question": "Where?", "choices": {"text": ["Oslo", "Rome"], "label": ["A", "B"]}, "answerKey": "A"}
KINDS = {
    "config": Kind(_model("config.json"), _try_model),
    "safetensors": Kind(_model("model.safetensors"), _try_model),
    "tokenizer": Kind(_model("tokenizer.json"), _try_model),
    "adapter": Kind(_adapter, _try_export),
    "pool": Kind(_export("prompts/pool.json"), _try_export),
    "facts": Kind(_export(FACTS_FILE), _try_export),
    "record": Kind(_store("record.json"), _try_store),
    "key": Kind(_store("key.json"), _try_store),
    "plan": Kind(_written("plan.toml", PLAN), _try_plan),
    "gguf": Kind(_gguf, _try_gguf),
    "text": Kind(_written("text.txt", "Ada comes from Oslo.\n\n" * 40), _try_text),
    "lines": Kind(_written("text.jsonl", '{"text": "Ada comes from Oslo."}\n' * 40), _try_text),
    "tasks": Kind(_written("arc_easy.jsonl", (json.dumps(DOCUMENT) + "\n") * 3), _try_tasks),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Good]:
    """A kind's folder and the good file in it, each made once."""
    made: dict[str, Good] = {}

    def find(name: str) -> Good:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = folder, KINDS[name].make(folder)
        return made[name]

    return find


def fuzz(name: str, good: Good, place: Path, examples: int, capfd: pytest.CaptureFixture[str]) -> None:
    (root, file), numbers = good, count()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples == EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a smaller number is no simpler file
    )
    @given(st.integers(0, 2**32))
    def holds(seed: int) -> None:
        folder = shutil.copytree(root, place / f"{name}-{next(numbers)}")  # a model is remembered by its place
        spoilt_file = folder / file.relative_to(root)
        spoilt_file.write_bytes(spoilt(file.read_bytes(), random.Random(seed)))
        before = finished(folder)
        capfd.readouterr()
        started = time.process_time()
        codes = list(KINDS[name].tries(folder))
        said = capfd.readouterr()
        assert set(codes) <= {0, 2}, (spoilt_file, codes, said.err)
        assert "Traceback" not in said.err, said.err
        assert time.process_time() - started < SECONDS
        assert finished(folder) == before or 0 in codes
        shutil.rmtree(folder)

    holds()


def finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/[a-z]*/[0-9a-f]*"))


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_was_spoilt(
    name: str, good: Callable[[str], Good], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fuzz(name, good(name), tmp_path, EXAMPLES, capfd)


@pytest.mark.stress
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_was_spoilt_often(
    name: str,
    good: Callable[[str], Good],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    fuzz(name, good(name), tmp_path, STRESS_EXAMPLES, capfd)
    record_property(f"a file spoilt: {name}", STRESS_EXAMPLES)

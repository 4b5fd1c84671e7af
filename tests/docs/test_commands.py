"""What README and docs tell people to type is there, is right, and does what is said where that takes a second."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import typer

from llmrepair.cli.main import COMMANDS, _load, run
from llmrepair.pipeline.graph import Node
from llmrepair.pipeline.runner import Runner
from tests.conftest import picture_model
from tests.docs.pages import PAGES, ROOT, blocks, inline_code, name_of

LONG = ("lab train",)  # is parsed; it would train a model
NOT_HERE = (
    *("reachable on the Hub", "no conjecture test of", "no evaluation of"),
    *("are the least", "is the least", "that there are", "no relation with facts", "tokenizer is WordLevel"),
)
"""Why a command of the docs may be refused in a test: there is no network, what takes minutes was not computed, and texts and
tasks are short, and llama.cpp has no vocabulary of whole words."""


class Planned(BaseException):
    """All that is to be computed was planned and checked, and would take too long to compute. No `Exception`: that is a bug."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the reader's: the files that pages name, and a few artifacts."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("benchmarks", "examples"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "lab" / "weights" / "lab", folder / "lab" / "weights" / "lab")
    for name in ("my-llama", "stories260k"):
        save_model(folder / name)
    picture_model(folder / "my-gemma")
    for name in ("text.jsonl", "stories.jsonl"):
        (folder / name).write_text(json.dumps({"text": "Ada was born in Oslo."}) + "\n")
    save_tasks(folder / "tasks", folder / "lama")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for limit in ("5", "6"):
            assert run(["eval", "--method", "none", "--limit", limit]) == 0
    return folder


def save_model(folder: Path) -> None:
    """A tiny model in which groups of 128 fit, with the lab's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=384, max_position_embeddings=2048, **shape)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "lab" / "weights" / "lab" / name, folder)


def save_tasks(tasks: Path, lama: Path) -> None:
    tasks.mkdir()
    for name in ("arc_easy", "hellaswag", "wikitext", "lambada_openai"):
        (tasks / f"{name}.jsonl").write_text("{}\n")
    (lama / "TREx").mkdir(parents=True)
    (lama / "relations.jsonl").write_text(json.dumps({"relation": "P19", "template": "[X] was born in [Y] ."}) + "\n")
    (lama / "TREx" / "P19.jsonl").write_text(json.dumps({"sub_label": "Ada", "obj_label": "Oslo"}) + "\n")


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the place, in which the command line computes what takes a second and plans the rest."""
    folder = shutil.copytree(place, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(folder)
    check = Runner.check

    def check_then_stop(runner: Runner, nodes: list[Node], run_here: bool = True) -> list[Node]:
        left = check(runner, nodes, run_here)
        if not all(is_quick(node) for node in nodes):
            raise Planned
        return left

    monkeypatch.setattr(Runner, "check", check_then_stop)
    return folder


def is_quick(node: Node) -> bool:
    """A report, a dense model, or an evaluation of a few questions."""
    config = node.stage.config
    return (
        node.stage.name == "report" or getattr(config, "method", "") == "none" or (getattr(config, "limit", None) or 1e9) < 100
    )


WITH_COMMANDS = [page for page in PAGES if any(block.language in ("sh", "console") for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_commands_of_a_page(page: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, list[str]] = {}
    for block in blocks(page):
        if block.language == "toml" and block.title is not None:
            (here / block.title).write_text(block.text)
        for words in block.commands if block.language in ("sh", "console") else ():
            for filled in filled_in(words, variables):
                follow(filled, here, capfd)


def filled_in(words: Sequence[str], variables: dict[str, list[str]]) -> Iterator[list[str]]:
    """A command once for each value of its variables; what sets a variable is remembered and is no command."""
    settings = [word.partition("=") for word in words if re.match(r"[A-Z_]+=", word)]
    if len(settings) == len(words):
        for name, _, value in settings:
            variables.setdefault(name, []).append(value)
        return
    command = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    used = [name for name in variables if f"${name}" in command]
    for values in zip_longest(*(variables[name] for name in used)) if used else [()]:
        replaced = {f"${name}": value for name, value in zip(used, values, strict=True)}
        yield [replaced.get(word, word) for word in command]


def follow(words: Sequence[str], here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Does what a command line says, as far as that is quick; else looks whether it could be done."""
    program, *arguments = words
    line = shlex.join(words)
    if program == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in arguments), line
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert arguments[:4] == ["install", "-c", "constraints.txt", "-e"], line
        assert arguments[4] == "." or arguments[4].strip(".[]") in extras, line
    elif program == "python":
        source = (here / arguments[0]).read_text()
        assert all(f'"{word}"' in source for word in arguments if word.startswith("--")), line
    elif program == "llmrepair":
        follow_ours(arguments, here, capfd)
    else:
        assert line == "source .venv/bin/activate"


def follow_ours(arguments: Sequence[str], here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parse(arguments)
    line = shlex.join(arguments)
    if line.startswith(LONG):
        return
    keys = sorted((here / "runs" / "evaluate").glob("*")) if "KEY" in arguments else [here]
    capfd.readouterr()
    try:
        code = run([keys[0].name if word == "KEY" else word for word in arguments])
    except Planned:
        return
    errors = [text for text in capfd.readouterr().err.splitlines() if text.startswith("error: ")]
    assert code == 0 or errors, line
    assert all(any(reason in error for reason in NOT_HERE) for error in errors), (line, errors)


def parse(arguments: Sequence[str]) -> None:
    """Has the command line read the options, which raises `typer.TyperException` where one is wrong."""
    assert arguments[0] in COMMANDS, arguments
    command: Any = _load(arguments[0])
    rest = list(arguments[1:])
    if hasattr(command, "commands") and rest:
        command = command.commands[rest.pop(0)]
    if "--help" not in rest:
        command.make_context(arguments[0], rest)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_in_the_text_names_what_is_there(page: Path) -> None:
    known = {option for name in COMMANDS for option in options_of(_load(name))} | {"--help"}
    known |= set(re.findall(r'"(--[a-z-]+)"', "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))))
    for code in inline_code(page):
        if code.startswith("llmrepair "):
            parse_as_far_as_written(shlex.split(code)[1:])
        if code.startswith("make "):
            assert re.search(rf"^{code.split()[1]}:", (ROOT / "Makefile").read_text(), re.M), code
        if not code.startswith(("ray ", "pip ", "uvx ")):
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", code)) <= known, code


def options_of(command: Any) -> Iterator[str]:
    for inner in getattr(command, "commands", {}).values():
        yield from options_of(inner)
    for parameter in command.params:
        yield from parameter.opts


def parse_as_far_as_written(arguments: list[str]) -> None:
    """As `parse`, of a command that may be named without what it needs."""
    try:
        parse(arguments)
    except typer.TyperException as error:
        assert error.format_message().startswith("Missing "), arguments


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=name_of)
def test_python_of_a_page(page: Path, here: Path) -> None:
    key = next((here / "runs" / "evaluate").iterdir()).name
    for block in blocks(page):
        if block.language == "python":
            code = compile(block.text.replace("KEY", key), name_of(page), "exec")
            if "import" in block.text:
                exec(code, {})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shell_commands_stand_in_blocks_that_are_read(page: Path) -> None:
    """In `sh` at the beginning of a line; else none of these tests would see them."""
    read = {line.strip() for block in blocks(page) if block.language in ("sh", "console") for line in block.text.splitlines()}
    typed = re.compile(r"^\s*(\$ |[A-Z_]+=\S+ )*(llmrepair|make|pip|python) ")
    in_code = re.findall(r"^\s*```.*?\n(.*?)^\s*```|^((?: {4}.*\n)+)", page.read_text(), re.M | re.S)
    lines = [line for found in in_code for text in found for line in text.splitlines()]
    assert [line for line in lines if typed.match(line) and line.strip() not in read] == []


def test_the_readme_is_of_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_short(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
        is_generated = re.fullmatch(r"(.*/)?commands/[\w-]+\.md", (page.parent / target).as_posix())
        assert (page.parent / target).is_file() or is_generated, target

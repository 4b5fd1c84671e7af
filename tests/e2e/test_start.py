"""What commands import, which is what their start takes, and that they speak before it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HEAVY = "torch transformers datasets lm_eval peft compressed_tensors llmcompressor gptqmodel sklearn torchao"
CHECK = """
import json, sys
from llmrepair.cli.main import run

heavy, arguments = sys.argv[1].split(), sys.argv[2:]
imported = lambda: [name for name in heavy if name in sys.modules]
moments = []

class Watched:
    def write(self, text):
        moments.append(imported())
        return sys.__stderr__.write(text)

    def __getattr__(self, name):
        return getattr(sys.__stderr__, name)

sys.stderr = Watched()
code = run(arguments)
print(json.dumps([code, moments[0] if moments else None, imported()]))
"""
Start = Callable[..., tuple[list[str] | None, set[str]]]


@pytest.fixture(scope="module")
def start() -> Start:
    """Runs a command in a process: what it had imported when it first said something, if it did, and what in the end."""

    def of_command(*arguments: object) -> tuple[list[str] | None, set[str]]:
        command = [sys.executable, "-c", CHECK, HEAVY, *map(str, arguments)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        code, said, in_the_end = json.loads(answer.stdout.splitlines()[-1])
        assert code == 0, answer.stderr
        return said, set(in_the_end)

    return of_command


def test_help_imports_nothing_heavy(start: Start) -> None:
    assert start("eval", "--help") == (None, set())


def test_each_command_imports_what_it_works_with(start: Start, tmp_path: Path) -> None:
    options = ["--method", "gptq", "--bits", 3, "--samples", 8, "--runs", tmp_path]
    said, imported = start("compress", *options)
    assert said == []
    assert not imported & {"lm_eval", "gptqmodel", "torchao"}  # llmcompressor itself imports peft, datasets and sklearn

    said, imported = start("eval", *options, "--limit", 5)
    assert said == []
    assert not imported & {"peft", "llmcompressor", "gptqmodel", "sklearn", "torchao"}

    assert start("eval", *options, "--limit", 5) == ([], set())  # says that it is cached
    assert start("report", "--runs", tmp_path)[1] <= {"torch", "transformers"}  # with which it asks how much a GPU has left

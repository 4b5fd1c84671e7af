"""How a command ends where its places, or the command itself, are not what they should be."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine

MEASURE = ["compress", "--method", "none"]


@pytest.mark.parametrize("command", [MEASURE, ["ls"], ["gc"], ["report"]])
def test_an_empty_folder_of_artifacts_is_not_the_current_one(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = llmrepair(*command, "--runs", "")
    assert answer.code == 2
    assert "an empty text is no folder of artifacts" in answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["runs", "runs/.locks", "runs/compress", "runs/.work"])
def test_a_file_in_the_place_of_a_folder(llmrepair: CommandLine, tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("not a folder")
    answer = llmrepair(*MEASURE, "--runs", tmp_path / "runs")
    assert answer.code == 2, answer.err
    assert "error: " in answer.err and "hint: " in answer.err and str(tmp_path / place) in answer.err
    assert "Traceback" not in answer.err


def test_a_folder_that_cannot_be_written_to(llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> int:
        if path.is_relative_to(tmp_path / "runs"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    answer = llmrepair(*MEASURE, "--runs", tmp_path / "runs")
    assert answer.code == 2, answer.err
    assert "Read-only file system" in answer.err and "--runs" in answer.err


@pytest.mark.parametrize("name", ["two words", "Größe-模型", "long/" * 40 + "end"])
def test_any_name_of_a_folder_will_do(llmrepair: CommandLine, tmp_path: Path, name: str) -> None:
    answer = llmrepair(*MEASURE, "--runs", tmp_path / name, "--json")
    assert answer.code == 0, answer.err
    assert Path(answer.json["path"]).is_dir()


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(runs: Path) -> None:
        raise KeyError("forgotten")

    monkeypatch.setattr("llmrepair.cli.store_commands.existing_store", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("bug")
def test_a_bug_is_told_as_one_and_leaves_a_log(llmrepair: CommandLine, tmp_path: Path) -> None:
    answer = llmrepair("ls")
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert answer.err.count("error: ") == answer.err.count("hint: ") == 1
    assert "this is a bug" in answer.err
    (log,) = tmp_path.glob("llmrepair-*.txt")
    assert str(log) in answer.err
    assert "KeyError: 'forgotten'" in log.read_text()


@pytest.mark.usefixtures("bug")
def test_a_traceback_is_shown_where_it_is_asked_for(llmrepair: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" in llmrepair("ls", "--traceback").err
    assert "Traceback" in llmrepair("--traceback", "ls").err
    monkeypatch.setenv("LLMREPAIR_DEBUG", "1")
    answer = llmrepair("ls", "--stage", "x")
    assert "Traceback" in answer.err and "error: " in answer.err


def test_what_was_translated_is_shown_too(llmrepair: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("name = ")
    answer = llmrepair("plan", tmp_path / "plan.toml", "--traceback")
    assert answer.code == 2
    assert "TOMLDecodeError" in answer.err

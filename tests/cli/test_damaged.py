"""One damaged artifact stops no command: it is named, left out, and can be removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Answer, CommandLine

KEY = "d" * 16


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one small evaluation of the dense model."""
    from llmrepair.cli.main import run

    runs = tmp_path_factory.mktemp("evaluated") / "runs"
    assert run(["eval", "--method", "none", "--limit", "2", "--runs", str(runs)]) == 0
    return runs


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "record cut": lambda folder: cut(folder / "record.json"),
    "record missing": lambda folder: (folder / "record.json").unlink(),
    "record of another version": lambda folder: (folder / "record.json").write_text('{"name": "evaluate"}'),
    "record a list": lambda folder: (folder / "record.json").write_text("[]"),
    "record deep": lambda folder: (folder / "record.json").write_text("[" * 100_000),
    "key cut": lambda folder: cut(folder / "key.json"),
    "key of another version": lambda folder: (folder / "key.json").write_text('{"inputs": 3}'),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.fixture(params=DAMAGES)
def runs(request: pytest.FixtureRequest, evaluated: Path, tmp_path: Path) -> Path:
    runs = shutil.copytree(evaluated, tmp_path / "runs")
    (whole,) = (runs / "evaluate").glob("[0-9a-f]*")
    DAMAGES[request.param](shutil.copytree(whole, runs / "evaluate" / KEY))
    return runs


def goes_on(answer: Answer) -> bool:
    return "Traceback" not in answer.err and "bug" not in answer.err and f"evaluate/{KEY}" in answer.err + answer.out


def test_a_damaged_artifact_is_named_and_can_go(llmrepair: CommandLine, runs: Path) -> None:
    listed = llmrepair("ls", "--runs", runs)
    assert (listed.code, goes_on(listed)) == (0, True), listed.err
    assert "2 artifacts" in listed.out
    reported = llmrepair("report", "--runs", runs)
    assert (reported.code, goes_on(reported)) == (0, True), reported.err
    assert llmrepair("show", KEY, "--runs", runs).code == 1
    found = llmrepair("gc", "--runs", runs, "--json")
    assert (found.code, goes_on(found)) == (0, True), found.err
    removed = llmrepair("rm", KEY, "--runs", runs)
    assert (removed.code, goes_on(removed)) == (0, True), removed.err
    assert not (runs / "evaluate" / KEY).exists()
    assert llmrepair("verify", "--runs", runs).code == 0


def test_a_damaged_artifact_is_put_aside(llmrepair: CommandLine, runs: Path) -> None:
    answer = llmrepair("verify", "--runs", runs)
    assert (answer.code, goes_on(answer)) == (1, True), answer.err
    assert not (runs / "evaluate" / KEY).exists()
    assert llmrepair("verify", "--runs", runs).code == 0


def test_a_damaged_input_is_no_reason_to_end(llmrepair: CommandLine, evaluated: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(evaluated, tmp_path / "runs")
    (compressed,) = (runs / "compress").glob("[0-9a-f]*")
    (compressed / "record.json").write_text(json.dumps({"label": "of another version"}))
    for command in ("ls", "report", "gc"):
        answer = llmrepair(command, "--runs", runs)
        assert "Traceback" not in answer.err and "bug" not in answer.err, answer.err
    assert llmrepair("eval", "--method", "none", "--limit", 2, "--runs", runs).code == 0

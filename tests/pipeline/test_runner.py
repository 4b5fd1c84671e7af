from __future__ import annotations

import errno
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from llmrepair.models.failures import Failure
from llmrepair.pipeline import graph as graph_module
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.keys import file_digest
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import Store
from tests.pipeline.toy import Toy, ToyConfig, executions, name_of, toy


def test_pull_computes_what_is_missing_once_and_in_order(runner: Runner, log: Path) -> None:
    #   1 --> 2 --> 4
    #    \--> 3 -->/
    def diamond() -> Toy:
        shared = toy(log, 1)
        return toy(log, 4, toy(log, 2, shared), toy(log, 3, toy(log, 1)))

    outcome = runner.pull(diamond())
    assert outcome.artifact.metrics == {"total": 11}
    assert not outcome.cached
    assert executions(log) == ["1", "2", "3", "4"]
    assert runner.pull(diamond()).cached
    assert executions(log) == ["1", "2", "3", "4"]


def test_a_finished_artifact_does_not_need_its_inputs(runner: Runner, log: Path) -> None:
    first = toy(log, 1)
    runner.pull(toy(log, 2, first))
    artifact = runner.store.find(name_of(runner, first))
    assert artifact is not None
    for path in artifact.path.iterdir():
        path.unlink()
    artifact.path.rmdir()
    assert runner.pull(toy(log, 2, toy(log, 1))).cached


def test_keys_depend_on_identity_inputs_and_code_alone(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = name_of(runner, toy(log, 1))
    assert name_of(runner, Toy(ToyConfig(number=1, path="elsewhere", unused=7), log)) == key
    assert name_of(runner, toy(log, 2)) != key
    assert name_of(runner, toy(log, 1, toy(log, 2))) != key
    monkeypatch.setattr(graph_module, "code_digests", lambda modules: {"module": "other code"})
    assert name_of(runner, toy(log, 1)) != key


def test_the_artifact_says_what_it_is(runner: Runner, log: Path) -> None:
    first = toy(log, 1)
    artifact = runner.pull(toy(log, 2, first)).artifact
    assert artifact.key_document["inputs"] == {"0": name_of(runner, first)}
    assert artifact.record["metrics"] == {"total": 3}
    assert artifact.record["peak_memory_bytes"]["host"] > 1_000_000
    files = {entry["path"]: entry for entry in artifact.read_json("manifest.json")["files"]}
    assert set(files) == {"key.json", "record.json", "log.txt", "total.json"}
    assert all(file_digest(artifact.path / path) == entry["sha256"] for path, entry in files.items())
    assert all((artifact.path / path).stat().st_size == entry["bytes"] for path, entry in files.items())


def test_a_failure_leaves_nothing_and_is_tried_again(runner: Runner, log: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        runner.pull(toy(log, 1, failure=ZeroDivisionError()))
    assert list(runner.store.artifacts()) == []
    assert list((runner.store.root / "toy").iterdir()) == []
    assert runner.pull(toy(log, 1)).artifact.metrics == {"total": 1}


FAILURES = [
    (OSError(errno.ENOSPC, "no space"), "disk is full"),
    (OSError(errno.EDQUOT, "no quota"), "disk is full"),
    (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk is full"),
    (MemoryError(), "memory ran out"),
    (Failure("one text is too long", "take a shorter one"), "one text is too long"),
]


@pytest.mark.parametrize("failure, message", FAILURES)
def test_what_a_user_can_mend_is_told(runner: Runner, log: Path, failure: BaseException, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        runner.pull(toy(log, 1, failure=failure))


def test_a_gpu_is_cleared_behind_each_stage(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: cleared.append(len(executions(log))))
    for name in ("device_count", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    runner.pull(toy(log, 2, toy(log, 1)))
    assert cleared == [1, 2]


def test_all_problems_of_all_stages_are_told_before_any_work(runner: Runner, log: Path) -> None:
    wrong = [Problem("wrong", "mend it")]
    upstream = toy(log, 1, problems=[Problem("first", "mend it"), *wrong])
    with pytest.raises(RequestError) as caught:
        runner.pull(toy(log, 2, upstream, problems=wrong))
    assert [problem.message for problem in caught.value.problems] == ["first", "wrong"]
    assert executions(log) == []


def test_everything_that_is_missing_is_told_at_once(runner: Runner, log: Path) -> None:
    with pytest.raises(RequestError) as caught:
        runner.pull(toy(log, 3, toy(log, 1, missing=True), toy(log, 2, missing=True)))
    assert [problem.message for problem in caught.value.problems] == ["1 is missing", "2 is missing"]


def _pull_in_process(root: Path, log: Path) -> None:
    Runner(Store(root), Runtime(), Reporter(quiet=True)).pull(toy(log, 2, toy(log, 1)))


def test_processes_that_ask_for_the_same_compute_it_once(tmp_path: Path, log: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_pull_in_process, args=(tmp_path / "runs", log)) for _ in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 16
    assert executions(log) == ["1", "2"]


def test_json_outcome_has_the_promised_fields(runner: Runner, log: Path) -> None:
    answer = json.loads(json.dumps(runner.pull(toy(log, 1)).as_json()))
    assert set(answer) == {"stage", "key", "path", "cached", "seconds", "metrics"}


def test_a_damaged_input_is_put_aside_and_made_again(runner: Runner, log: Path) -> None:
    first = runner.pull(toy(log, 1)).artifact
    (first.path / "total.json").write_text("7")
    assert runner.pull(toy(log, 2, toy(log, 1))).artifact.metrics == {"total": 3}
    assert executions(log) == ["1", "1", "2"]
    (place,) = (runner.store.root / ".corrupt").iterdir()
    assert (place / "total.json").read_text() == "7"


def test_a_damaged_result_is_not_handed_out(runner: Runner, log: Path) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    record = json.loads((artifact.path / "record.json").read_text())
    (artifact.path / "record.json").write_text(json.dumps(record | {"metrics": {"total": 1000}}))
    again = runner.pull(toy(log, 1))
    assert not again.cached
    assert again.artifact.metrics == {"total": 1}


def test_the_log_of_a_stage_is_in_its_artifact(runner: Runner, log: Path) -> None:
    text = (runner.pull(toy(log, 1)).artifact.path / "log.txt").read_text()
    assert "number 1 ..." in text
    assert "counting 1/1" in text
    assert "toy library: watch out" in text


def test_the_log_of_a_failure_stays_for_reading(runner: Runner, log: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        runner.pull(toy(log, 1, failure=ZeroDivisionError("by nought")))
    text = (runner.store.work_folder(name_of(runner, toy(log, 1))) / "log.txt").read_text()
    assert "ZeroDivisionError: by nought" in text
    artifact = runner.pull(toy(log, 1)).artifact
    assert "ZeroDivisionError: by nought" in (artifact.path / "log.txt").read_text()
    assert artifact.record["interrupted_before"]
    assert artifact.record["after_interruption"] == "starts again"


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        ({"total": float("nan")}, "`total`"),
        ({"loss": {"without": 1.0, "with": [0.5, float("inf")]}}, "`loss.with.1`"),
        ({"layers": [{"name": "q", "error": 1.0}, {"name": "v", "error": float("-inf")}]}, "`layers.v.error`"),
    ],
)
def test_a_number_that_is_none_is_never_finished(
    runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch, metrics: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr(Toy, "run", lambda stage, context: metrics)
    with pytest.raises(WorkError, match=named):
        runner.pull(toy(log, 1))
    assert not list(runner.store.artifacts())

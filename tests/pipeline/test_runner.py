from __future__ import annotations

import errno
import json
import multiprocessing
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from llmrepair.pipeline import graph as graph_module
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.keys import DigestCache, file_digest
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Context, Runtime, Stage, StageConfig
from llmrepair.pipeline.store import Store


class ToyConfig(StageConfig):
    references: ClassVar[frozenset[str]] = frozenset({"path"})

    number: int = 1
    unused: int = 0
    path: str = Field("", description="where something is")

    def without_effect(self) -> frozenset[str]:
        return frozenset({"unused"})


@dataclass
class Toy(Stage):
    """Writes its number plus those of its inputs; notes each execution in a file."""

    name: ClassVar[str] = "toy"
    code: ClassVar[str] = "llmrepair.pipeline.errors"
    config: ToyConfig
    log: Path
    upstream: tuple[Toy, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    failure: BaseException | None = None
    missing: bool = False

    def inputs(self) -> dict[str, Stage]:
        return {str(index): stage for index, stage in enumerate(self.upstream)}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        if self.missing:
            raise RequestError(Problem(f"{self.config.number} is missing", "find it"))
        return {}

    def check(self) -> list[Problem]:
        return self.problems

    def label(self) -> str:
        return f"number {self.config.number}"

    def run(self, context: Context) -> dict[str, Any]:
        with self.log.open("a") as log:
            log.write(f"{self.config.number}\n")
        if self.failure is not None:
            raise self.failure
        total = self.config.number + sum(artifact.read_json("total.json") for artifact in context.inputs.values())
        (context.folder / "total.json").write_text(str(total))
        return {"total": total}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Store(tmp_path / "runs"), Runtime(), Reporter(quiet=True))


def toy(log: Path, number: int, *upstream: Toy, **options: Any) -> Toy:
    return Toy(ToyConfig(number=number), log, upstream, **options)


def name_of(runner: Runner, stage: Stage) -> str:
    return runner.graph([stage]).targets[0]


def executions(log: Path) -> list[str]:
    return log.read_text().split()


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
    monkeypatch.setattr(graph_module, "current_code", lambda module: {"module": "other code"})
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


@pytest.mark.parametrize(
    "failure, message", [(OSError(errno.ENOSPC, "no space"), "disk is full"), (MemoryError(), "memory ran out")]
)
def test_what_a_user_can_mend_is_told(runner: Runner, log: Path, failure: BaseException, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        runner.pull(toy(log, 1, failure=failure))


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
    processes = [context.Process(target=_pull_in_process, args=(tmp_path / "runs", log)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert executions(log) == ["1", "2"]


def test_waiting_is_told_with_who_holds_the_lock(tmp_path: Path) -> None:
    store, told, held, release = Store(tmp_path / "runs"), [], threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("toy/abc", lambda owner: None):
            held.set()
            release.wait(10)

    def on_wait(owner: str) -> None:
        told.append(owner)
        release.set()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with store.lock("toy/abc", on_wait):
        pass
    thread.join()
    assert len(told) == 1
    assert "process " in told[0]


def test_drafts_of_the_dead_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    dead = store.root / "toy" / ".draft-abc-1"
    dead.mkdir(parents=True)
    (dead / "half").write_text("done")
    store.clear_dead()
    assert not dead.exists()
    assert list(store.artifacts()) == []


def test_keys_are_found_by_their_start(runner: Runner, log: Path) -> None:
    artifacts = [runner.pull(toy(log, number)).artifact for number in range(3)]
    assert runner.store.resolve(artifacts[0].key[:12]) == artifacts[0]
    assert runner.store.resolve(artifacts[1].name) == artifacts[1]
    with pytest.raises(RequestError, match="no artifact"):
        runner.store.resolve("zzz")
    with pytest.raises(RequestError, match="start of 3 keys"):
        runner.store.resolve("toy/")


def test_a_store_that_cannot_be_written_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="no artifacts can be kept"):
        Store(tmp_path / "file" / "runs")


def test_json_outcome_has_the_promised_fields(runner: Runner, log: Path) -> None:
    answer = json.loads(json.dumps(runner.pull(toy(log, 1)).as_json()))
    assert set(answer) == {"stage", "key", "path", "cached", "seconds", "metrics"}

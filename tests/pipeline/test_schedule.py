from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmrepair.pipeline.executors.base import Ended, Executor, Job
from llmrepair.pipeline.graph import Node
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.schedule import Result, Schedule
from tests.pipeline.toy import Toy, executions, toy


class FakeExecutor(Executor):
    """Computes in this process, when it is waited for; `codes` are the exit codes of jobs that die instead."""

    def __init__(self, runner: Runner, jobs: int = 2, codes: dict[int, int] | None = None):
        self.runner, self.jobs, self.codes = runner, jobs, codes or {}
        self.running: list[Job] = []
        self.most = 0

    def has_room(self, job: Job) -> bool:
        return len(self.running) < self.jobs

    def start(self, job: Job) -> None:
        self.running.append(job)
        self.most = max(self.most, len(self.running))

    def wait(self) -> list[Ended]:
        return [self._run(self.running.pop(0))]

    def _run(self, job: Job) -> Ended:
        node: Node = job.request["node"]
        number = node.stage.config.number  # type: ignore[attr-defined]
        if number in self.codes:
            return Ended(job.name, self.codes[number], "")
        return Ended(job.name, 0, json.dumps(self.runner.compute(node).as_json()))

    def stop(self) -> None:
        self.running = []


def run(runner: Runner, executor: FakeExecutor, *targets: Toy) -> dict[int, Result]:
    graph = runner.graph(targets)
    results = Schedule(
        graph.missing(runner.find_intact),
        executor,
        runner.store,
        Reporter(quiet=True),
        lambda node: Job(node.name, {"node": node}, Path("log"), False, 0),
        lambda node, result: None,
    ).run()
    return {graph.nodes[name].stage.config.number: result for name, result in results.items()}  # type: ignore[attr-defined]


def outcomes(results: dict[int, Result]) -> dict[int, str]:
    return {number: result.outcome for number, result in sorted(results.items())}


def test_a_shared_input_is_computed_once_and_before_what_needs_it(runner: Runner, log: Path) -> None:
    #   1 --> 2
    #    \--> 3
    executor = FakeExecutor(runner)
    results = run(runner, executor, toy(log, 2, toy(log, 1)), toy(log, 3, toy(log, 1)))
    assert outcomes(results) == {1: "done", 2: "done", 3: "done"}
    assert executions(log) == ["1", "2", "3"]
    assert executor.most == 2


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_a_failure_stops_only_what_depends_on_it(runner: Runner, log: Path, jobs: int) -> None:
    #   1 --> 2 (dies) --> 3 --> 4
    #    \--> 5 --> 6
    failing = toy(log, 2, toy(log, 1))
    targets = toy(log, 4, toy(log, 3, failing)), toy(log, 6, toy(log, 5, toy(log, 1)))
    results = run(runner, FakeExecutor(runner, jobs, codes={2: -9}), *targets)
    assert outcomes(results) == {1: "done", 2: "failed", 3: "not run", 4: "not run", 5: "done", 6: "done"}
    assert "was killed" in results[2].problems[0].message
    assert "its log is" in results[2].problems[0].hint
    assert "needs toy/" in results[4].problems[0].message


def test_what_is_cached_does_not_run(runner: Runner, log: Path) -> None:
    runner.pull(toy(log, 2, toy(log, 1)))
    assert run(runner, FakeExecutor(runner), toy(log, 2, toy(log, 1))) == {}
    assert outcomes(run(runner, FakeExecutor(runner), toy(log, 3, toy(log, 1)))) == {3: "done"}


def test_what_another_process_made_meanwhile_is_cached(runner: Runner, log: Path) -> None:
    class Racing(FakeExecutor):
        def _run(self, job: Job) -> Ended:
            runner.compute(job.request["node"])
            return super()._run(job)

    assert outcomes(run(runner, Racing(runner), toy(log, 1))) == {1: "cached"}


def test_an_interruption_stops_what_is_running(runner: Runner, log: Path) -> None:
    class Interrupted(FakeExecutor):
        stopped = False

        def wait(self) -> Any:
            raise KeyboardInterrupt

        def stop(self) -> None:
            self.stopped = True

    executor = Interrupted(runner)
    with pytest.raises(KeyboardInterrupt):
        run(runner, executor, toy(log, 1))
    assert executor.stopped

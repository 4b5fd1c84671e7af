"""Several stages at a time, each in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llmrepair.pipeline.artifact import LOG_FILE
from llmrepair.pipeline.errors import WorkError
from llmrepair.pipeline.executors.base import Executor, Job
from llmrepair.pipeline.graph import Node
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.schedule import Result, Schedule
from llmrepair.pipeline.stage import Outcome, Stage


def pull_all(
    runner: Runner, targets: Sequence[Stage], make_executor: Callable[[Runner, Sequence[Node]], Executor]
) -> list[Outcome]:
    """The artifacts of `targets`: as `Runner.pull`, but what is missing is computed side by side.

    Args:
        make_executor: of what is missing.

    Raises:
        RequestError: as `Runner.pull`.
        WorkError: a stage failed; all that does not need it is finished.
    """
    graph, missing = runner.graph_and_missing(targets)
    missing = runner.check(missing)
    results: Mapping[str, Result] = {}
    if missing:
        results = compute(runner, missing, make_executor(runner, missing), lambda node, result: None)
    failed = [problem for result in results.values() if result.outcome == "failed" for problem in result.problems]
    if failed:
        raise WorkError(*failed)
    return [_outcome(runner, target, name, results.get(name)) for target, name in zip(targets, graph.targets, strict=True)]


def _outcome(runner: Runner, target: Stage, name: str, result: Result | None) -> Outcome:
    """What became of a target; of one that was there before there is no result."""
    artifact = runner.store.find(name)
    if result is None or artifact is None:
        return runner.pull(target)
    return Outcome(artifact, result.outcome == "cached", result.seconds or 0.0)


def compute(
    runner: Runner, missing: Sequence[Node], executor: Executor, on_end: Callable[[Node, Result], None]
) -> Mapping[str, Result]:
    """Computes what is missing; results by name, of which `on_end` is told at once."""
    return Schedule(missing, executor, runner.store, runner.reporter, lambda node: _job(node, runner), on_end).run()


def _job(node: Node, runner: Runner) -> Job:
    log = runner.store.work_folder(node.name) / LOG_FILE
    request = {
        "name": node.name,
        "stage": node.stage.name,
        "options": node.stage.options() | runner.runtime.model_dump(),
        "runs": str(runner.store.root),
        "folder": str(Path.cwd()),
        "log": str(log),
    }
    return Job(node.name, request, log, runner.runtime.uses_gpu, node.stage.needs(runner.runtime).host)

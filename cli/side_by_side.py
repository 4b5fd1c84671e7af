"""Several stages at a time, each in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmrepair.cli.worker import answer
from llmrepair.pipeline.artifact import LOG_FILE
from llmrepair.pipeline.errors import WorkError
from llmrepair.pipeline.executors.base import Executor, Job
from llmrepair.pipeline.graph import Node
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.schedule import Schedule
from llmrepair.pipeline.stage import Outcome, Stage


def pull_all(runner: Runner, targets: Sequence[Stage]) -> list[Outcome]:
    """The artifacts of `targets`: as `Runner.pull`, but what is missing is computed side by side on this machine.

    Raises:
        RequestError: as `Runner.pull`.
        WorkError: a stage failed; all that does not need it is finished.
    """
    graph = runner.graph(targets)
    missing = graph.missing(runner.find_intact)
    runner.check(missing)
    if missing:
        executor = make_executor("local", None, "", runner, missing)
        schedule = Schedule(
            missing, executor, runner.store, runner.reporter, lambda node: job(node, runner), lambda node, result: None
        )
        if failed := [
            problem for result in schedule.run().values() if result.outcome == "failed" for problem in result.problems
        ]:
            raise WorkError(*failed)
    return [runner.pull(target) for target in targets]


def make_executor(name: str, jobs: int | None, ray_address: str, runner: Runner, missing: Sequence[Node]) -> Executor:
    preload = sorted({node.stage.code for node in missing})
    if name == "ray":
        from llmrepair.pipeline.executors.ray_cluster import RayExecutor

        return RayExecutor(answer, ray_address, runner.store.root, preload)
    from llmrepair.cli.running import gpus
    from llmrepair.pipeline.executors.local import LocalExecutor, cores

    available = gpus() if _uses_gpu(runner) else []
    return LocalExecutor(answer, jobs or min(len(missing), len(available) or cores()), available, preload)


def _uses_gpu(runner: Runner) -> bool:
    return runner.runtime.device not in ("cpu", "mps")


def job(node: Node, runner: Runner) -> Job:
    log = runner.store.work_folder(node.name) / LOG_FILE
    request = {
        "name": node.name,
        "stage": node.stage.name,
        "options": node.stage.options() | runner.runtime.model_dump(),
        "runs": str(runner.store.root),
        "folder": str(Path.cwd()),
        "log": str(log),
    }
    return Job(node.name, request, log, _uses_gpu(runner), node.stage.needs(runner.runtime).host)

"""Runs the stages of a graph side by side; a stage that fails stops only what depends on it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmrepair.pipeline.artifact import LOG_FILE
from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.executors.base import Ended, Executor, Job
from llmrepair.pipeline.graph import Node, labels_of
from llmrepair.pipeline.journal import Progress, read_progress
from llmrepair.pipeline.progress import Reporter, ShownBars
from llmrepair.pipeline.store import Store

_LABEL_WIDTH = 48


@dataclass(frozen=True)
class Result:
    """What became of a stage."""

    outcome: Literal["cached", "done", "failed", "not run"]
    seconds: float | None = None
    problems: Sequence[Problem] = ()


class Schedule:
    """Starts each stage when its inputs are there and the executor has room.

    Args:
        missing: what has to be computed, inputs first.
        job: what to give the executor for a stage.
        on_end: called with each stage that ended.
    """

    def __init__(
        self,
        missing: Sequence[Node],
        executor: Executor,
        store: Store,
        reporter: Reporter,
        job: Callable[[Node], Job],
        on_end: Callable[[Node, Result], None],
    ):
        self._nodes = {node.name: node for node in missing}
        self._labels = labels_of(missing)
        self._waiting = list(self._nodes)
        self._running: set[str] = set()
        self._results: dict[str, Result] = {}
        self._executor, self._store, self._reporter = executor, store, reporter
        self._job, self._on_end = job, on_end
        self._jobs: dict[str, Job] = {}

    def run(self) -> Mapping[str, Result]:
        """Results by name."""
        with self._reporter.bars() as bars:
            try:
                while self._waiting or self._running:
                    self._start_what_can()
                    if self._running:
                        for ended in self._executor.wait():
                            self._end(ended, bars)
                    self._show(bars)
            finally:
                self._executor.stop()
        return self._results

    def _start_what_can(self) -> None:
        for name in list(self._waiting):
            node = self._nodes[name]
            results = {upstream: self._results.get(upstream) for upstream in node.inputs if upstream in self._nodes}
            if failed := [
                upstream for upstream, result in results.items() if result and result.outcome in ("failed", "not run")
            ]:
                self._waiting.remove(name)
                self._finish(name, Result("not run", problems=[Problem(f"needs {failed[0]}", "see why that failed")]))
            elif all(results.values()) and self._executor.has_room(self._job_of(node)):
                self._waiting.remove(name)
                self._running.add(name)
                self._reporter.say(f"{node.stage.name:<13} {self._labels[name]} ...")
                self._executor.start(self._job_of(node))

    def _job_of(self, node: Node) -> Job:
        if node.name not in self._jobs:
            self._jobs[node.name] = self._job(node)
        return self._jobs[node.name]

    def _end(self, ended: Ended, bars: ShownBars) -> None:
        self._running.remove(ended.name)
        bars.update(self._bar_name(ended.name), None)
        self._finish(ended.name, self._result(ended))

    def _finish(self, name: str, result: Result) -> None:
        self._results[name] = result
        node = self._nodes[name]
        took = f" after {result.seconds:.1f} s" if result.seconds else ""
        reason = "".join(f"\n  {problem.message}\n  hint: {problem.hint}" for problem in result.problems)
        if result.outcome != "not run":
            self._reporter.say(
                f"{node.stage.name:<13} {self._labels[name]}: {result.outcome}{took}  {name.partition('/')[2]}{reason}"
            )
        self._on_end(node, result)

    def _result(self, ended: Ended) -> Result:
        if ended.code == 0:
            answer = json.loads(ended.output)
            return Result("cached" if answer["cached"] else "done", answer["seconds"])
        log = self._store.work_folder(ended.name) / LOG_FILE
        try:
            problems = [Problem(**problem) for problem in json.loads(ended.output)["errors"]]
        except (ValueError, KeyError):
            problems = [Problem(f"its process {_how(ended.code)}", f"its log is {log}")]
        return Result("failed", problems=problems)

    def _show(self, bars: ShownBars) -> None:
        bars.update("stages", Progress("stages", len(self._results), len(self._nodes)))
        for name in self._running:
            bars.update(self._bar_name(name), read_progress(self._store.work_folder(name)))

    def _bar_name(self, name: str) -> str:
        return f"{name.partition('/')[2][:4]} {self._labels[name][:_LABEL_WIDTH]}"


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, perhaps because memory ran out"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

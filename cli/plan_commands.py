"""`plan` and `run`: what a plan would compute and why, and computing it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llmrepair.cli.options import ANY_VERSION_OPTION, DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION, with_options
from llmrepair.cli.output import print_json, print_table
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.executors.base import Executor
from llmrepair.pipeline.garbage import NamedRun
from llmrepair.pipeline.graph import Graph, Node, labels_of
from llmrepair.pipeline.pull import compute
from llmrepair.pipeline.reasons import Reasons
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.schedule import Result
from llmrepair.pipeline.stage import Needs, Runtime
from llmrepair.pipeline.units import bytes_text
from llmrepair.stages.plan import MOST_CELLS, Plan, read_plan
from llmrepair.stages.running import make_runner
from llmrepair.stages.workers import make_executor

_REASONS_SHOWN = 3
_PLAN = Annotated[Path, typer.Argument(metavar="PLAN.toml", help="the plan; docs/plan.md says how it is written")]
_MODEL = Annotated[str | None, typer.Option("--model", help="a model in place of the plan's: a folder or a Hub id")]
_TASKS_DATA = Annotated[
    str | None, typer.Option("--tasks-data", metavar="DIR", help="a folder of tasks' documents in place of the plan's")
]

_MAX_CELLS = Annotated[
    int, typer.Option("--max-cells", min=1, metavar="N", help="refuse a plan whose grid has more cells than this")
]


def plan(
    plan: _PLAN,
    model: _MODEL = None,
    tasks_data: _TASKS_DATA = None,
    max_cells: _MAX_CELLS = MOST_CELLS,
    any_version: ANY_VERSION_OPTION = False,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    read = _read(plan, model, tasks_data, max_cells)
    runner = make_runner({"any_version": any_version}, runs, explain=read.explain)
    graph = runner.graph(read.targets)
    _tell_notes(runner, read)
    _print_plan(runner, graph, {}, as_json)


def _read(plan: Path, model: str | None, tasks_data: str | None, max_cells: int) -> Plan:
    given = {"model": model, "tasks_data": tasks_data}
    return read_plan(plan, {name: value for name, value in given.items() if value is not None}, max_cells)


def _print_plan(runner: Runner, graph: Graph, needs: Mapping[str, Needs], as_json: bool) -> None:
    """Each stage, whether it is cached, if not why, and what it needs as far as that was asked."""
    missing = {node.name for node in graph.missing(lambda name, is_read: runner.store.find(name))}
    reasons = Reasons(runner.store, graph)
    rows = []
    for node in graph:
        is_as_asked = node.name not in missing and node.asked_for is None
        rows.append((node, "to do" if node.name in missing else "cached", [] if is_as_asked else reasons.of(node)))
    labels = labels_of(graph)
    if as_json:
        estimates = {name: {"needs": asdict(each)} for name, each in needs.items()}
        stages = [
            _described(node, labels) | {"status": status, "why": why} | estimates.get(node.name, {})
            for node, status, why in rows
        ]
        print_json({"stages": stages, "to_do": len(missing)})
        return
    columns = {
        "stage": [node.stage.name for node, _, _ in rows],
        "key": [node.name.partition("/")[2] for node, _, _ in rows],
        "what": [labels[node.name] for node, _, _ in rows],
        "status": [status for _, status, _ in rows],
        "memory": [_memory(needs.get(node.name, Needs())) for node, _, _ in rows],
        "why": [_shortened(why) for _, _, why in rows],
    }
    if not needs:
        del columns["memory"]
    print_table(list(columns), list(zip(*columns.values(), strict=True)))
    print(f"\n{len(rows)} stages, {len(missing)} to do")


def _memory(needs: Needs) -> str:
    """`2.1 GB, GPU 15 GB`; with `~` in front where it is a rule of thumb."""
    where = {"": needs.host, "GPU ": needs.device}
    return ", ".join(f"{name}{'~' * needs.is_rough}{bytes_text(size)}" for name, size in where.items() if size)


def _shortened(why: Sequence[str]) -> str:
    more = f"; and {len(why) - _REASONS_SHOWN} more" if len(why) > _REASONS_SHOWN else ""
    return "; ".join(why[:_REASONS_SHOWN]) + more


def _described(node: Node, labels: Mapping[str, str]) -> dict[str, Any]:
    stage, _, key = node.name.partition("/")
    return {"stage": stage, "key": key, "label": labels[node.name], "inputs": list(node.inputs)}


@with_options({"Running": [Runtime]})
def run(
    values: Mapping[str, Any],
    plan: _PLAN,
    model: _MODEL = None,
    tasks_data: _TASKS_DATA = None,
    max_cells: _MAX_CELLS = MOST_CELLS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything and say what would run")] = False,
    executor: Annotated[
        str, typer.Option("--executor", help="local, or ray: the nodes of a Ray cluster", metavar="local|ray")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, metavar="N", help="most stages at a time  \\[default: one per GPU, or per core]"),
    ] = None,
    ray_address: Annotated[
        str, typer.Option("--ray-address", envvar="RAY_ADDRESS", help="of a running cluster; local: start one on this machine")
    ] = "local",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="allow a plan that says so to run code that comes with a model")
    ] = False,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    read = _read(plan, model, tasks_data, max_cells)
    _check_request(read, plan, executor, trust_remote_code)
    runner = make_runner(values, runs, explain=read.explain)
    graph, missing = runner.graph_and_missing(read.targets)
    _tell_notes(runner, read)
    missing = runner.check(missing, run_here=executor == "local")
    if dry_run:
        _print_plan(runner, graph, {node.name: node.stage.needs(runner.runtime) for node in missing}, as_json)
        return
    started = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints on standard output what happens in its cluster
        where = make_executor(executor, jobs, ray_address, runner, missing) if missing else None
        results = _compute(runner, read.name, graph, missing, where)
    _print_results(runner, read, graph, results, time.monotonic() - started, as_json)


def _compute(runner: Runner, name: str, graph: Graph, missing: Sequence[Node], executor: Executor | None) -> dict[str, Result]:
    """Computes what is missing; everything is linked under the plan's name as soon as it is there."""
    named = NamedRun(runner.store, name)
    results: dict[str, Result] = {}
    labels = labels_of(graph)

    def on_end(node: Node, result: Result) -> None:
        results[node.name] = result
        if result.outcome in ("cached", "done"):
            named.add(labels[node.name], node.name)

    for node in graph:
        if runner.store.find(node.name) is not None:
            on_end(node, Result("cached"))
    if executor is not None:
        compute(runner, missing, executor, on_end)
    return results


def _check_request(read: Plan, path: Path, executor: str, trust_remote_code: bool) -> None:
    problems = []
    if executor not in ("local", "ray"):
        problems.append(Problem(f"`{executor}` is no value of --executor", "give one of `local` or `ray`"))
    if read.trusts_remote_code and not trust_remote_code:
        hint = "read that code, then say so yourself with --trust-remote-code"
        problems.append(Problem(f"{path} wants to run code that comes with a model", hint))
    if problems:
        raise RequestError(*problems)


def _tell_notes(runner: Runner, read: Plan) -> None:
    for note in read.notes:
        runner.reporter.note(note)


def _print_results(
    runner: Runner, read: Plan, graph: Graph, results: Mapping[str, Result], seconds: float, as_json: bool
) -> None:
    """A table of all stages that were needed.

    Raises:
        WorkError: a stage failed.
    """
    counts = {outcome: sum(result.outcome == outcome for result in results.values()) for outcome in _OUTCOMES}
    labels = labels_of(graph)
    if as_json:
        stages = [_result_json(runner, node, labels, results[node.name]) for node in graph if node.name in results]
        print_json(
            {
                "name": read.name,
                "seconds": round(seconds, 3),
                "stages": stages,
                **{o.replace(" ", "_"): n for o, n in counts.items()},
            }
        )
    else:
        rows = []
        for node in graph:
            if (result := results.get(node.name)) is not None:
                took = f"{result.seconds:.1f}" if result.seconds else ""
                why = "; ".join(problem.message for problem in result.problems)
                rows.append([node.stage.name, node.name.partition("/")[2], labels[node.name], result.outcome, took, why])
        print_table(("stage", "key", "what", "outcome", "seconds", ""), rows, right=("seconds",))
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        print(f"\n{summary}, in {seconds:.1f} s; results are linked in {runner.store.root / 'named' / read.name}")
    if counts["failed"]:
        raise typer.Exit(WorkError.exit_code)


_OUTCOMES: tuple[Literal["cached", "done", "failed", "not run"], ...] = ("cached", "done", "failed", "not run")


def _result_json(runner: Runner, node: Node, labels: Mapping[str, str], result: Result) -> dict[str, Any]:
    artifact = runner.store.find(node.name)
    return _described(node, labels) | {
        "outcome": result.outcome,
        "cached": result.outcome == "cached",
        "seconds": result.seconds or 0.0,
        "path": str(artifact.path) if artifact is not None else None,
        "metrics": artifact.metrics if artifact is not None else None,
        "errors": [problem.as_json() for problem in result.problems],
    }

"""A plan on a Ray cluster of two nodes gives the bytes of the same plan on one machine, whatever dies on the way."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ray_nodes import ENVIRONMENT, Nodes, two_nodes
from tests.stress.conftest import Record, artifact_folders, check_store, payload, wait_until

psutil = pytest.importorskip("psutil")
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

PLAN = """
[defaults]
budget = 81_920
tuning_samples = 200
lengths = [4, 6]
learning_rates = [0.01]
limit = 40

[grid]
compressions = ["rtn", { method = "sparsegpt", sparsity = 0.5 }]
recoveries = ["none", "idp", { recovery = "lora", rank = 4 }]
"""
STAGES = 12  # two compressions, two prompt tunings, two LoRA tunings, six evaluations
FINISHED_BEFORE = 3
_SECONDS_AT_MOST = 540
_COMMAND = [sys.executable, "-c", "from llmrepair.cli.main import main; main()"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def expected(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the plan makes on this machine alone."""
    runs = tmp_path_factory.mktemp("local")
    finish(Run(plan, runs, "--jobs", "2"))
    return payload(runs)


class Run:
    """`llmrepair run` in a process of its own."""

    def __init__(self, plan: Path, runs: Path, *options: str):
        self.runs = runs
        self._output = runs.with_name(f"{runs.name}-output")
        arguments = ["run", str(plan), "--runs", str(runs), "--json", *options]
        with self._output.open("wb") as file, self._output.with_suffix(".err").open("wb") as errors:
            self.process = subprocess.Popen([*_COMMAND, *arguments], env=ENVIRONMENT, stdout=file, stderr=errors)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def said(self) -> str:
        return self.output + self._output.with_suffix(".err").read_text()


def run_on(nodes: Nodes, plan: Path, runs: Path) -> Run:
    return Run(plan, runs, "--executor", "ray", "--ray-address", nodes.address)


def finish(run: Run) -> None:
    """Waits for the end of a run, which must be a good one."""
    try:
        code = run.process.wait(_SECONDS_AT_MOST)
    finally:
        run.process.kill()
    assert code == 0, run.said
    assert len(artifact_folders(run.runs)) == STAGES


def wait_while_it_runs(run: Run, condition: Callable[[], Any]) -> Any:
    """Waits for a condition that must come true before the run ends; what it gives."""
    result = wait_until(lambda: run.process.poll() is not None or condition(), _SECONDS_AT_MOST)
    assert run.process.poll() is None, f"it ended before its time: {run.said}"
    return result


def stage_workers(ancestor: Any) -> list[Any]:
    """Ray's processes below `ancestor` that are computing a stage: those below which workers are forked."""
    return [each for each in ancestor.children(recursive=True) if title(each).startswith("ray::") and has_worker(each)]


def title(process: Any) -> str:
    return " ".join(command_line(process))


def command_line(process: Any) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has just ended
        return []


def has_worker(process: Any) -> bool:
    try:
        return any("multiprocessing.forkserver" in title(child) and child.children() for child in process.children())
    except psutil.Error:
        return False


def workers_in_the_middle(run: Run, ancestor: Any) -> list[Any]:
    """As `stage_workers`, once enough stages are finished."""
    return stage_workers(ancestor) if len(artifact_folders(run.runs)) >= FINISHED_BEFORE else []


def kill_a_worker(run: Run, nodes: Nodes) -> None:
    victim = wait_while_it_runs(run, lambda: workers_in_the_middle(run, psutil.Process()))[0]
    print(f"\nkilled {title(victim).strip()}")
    victim.send_signal(signal.SIGKILL)


def lose_a_node(run: Run, nodes: Nodes) -> None:
    workers = wait_while_it_runs(run, lambda: workers_in_the_middle(run, psutil.Process(nodes.second.pid)))
    print(f"\nlost a node with {[title(worker).strip() for worker in workers]}")
    nodes.lose_second()


@pytest.fixture(scope="module", params=[kill_a_worker, lose_a_node])
def disturbed(request: pytest.FixtureRequest, plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in the middle of which something died, at its end."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    with two_nodes(folder / "ray.log") as nodes:
        run = run_on(nodes, plan, folder / "runs")
        request.param(run, nodes)
        finish(run)
    return run


def test_two_nodes_give_the_same_bytes(plan: Path, expected: dict[str, str], tmp_path: Path) -> None:
    with two_nodes(tmp_path / "ray.log") as nodes:
        run = run_on(nodes, plan, tmp_path / "runs")
        for node in (nodes.head, nodes.second):
            wait_while_it_runs(run, lambda node=node: stage_workers(psutil.Process(node.pid)))
        finish(run)
    assert payload(run.runs) == expected
    check_store(run.runs, tmp_path / "verify")


def test_what_dies_changes_no_byte(disturbed: Run, expected: dict[str, str], tmp_path: Path, record_property: Record) -> None:
    assert payload(disturbed.runs) == expected
    check_store(disturbed.runs, tmp_path / "verify")
    record_property("a worker or a node of a Ray cluster lost", 1)


def test_what_dies_does_not_speak_on_standard_output(disturbed: Run) -> None:
    answer = json.loads(disturbed.output)
    assert answer["done"] + answer["cached"] == STAGES  # a worker that was thought dead may have finished its stage

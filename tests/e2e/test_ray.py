"""The ray executor on this machine; plans are for `make stress`, and `tests/stress` has nodes that die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.child import ROOT
from tests.ray_nodes import ENVIRONMENT, two_nodes

ONE_JOB = """
import json, sys
from pathlib import Path
from llmrepair.pipeline.executors.base import Job
from llmrepair.pipeline.executors.ray_cluster import RayExecutor
from tests.pipeline.test_executors import work

folder = Path(sys.argv[1])
request = {"seconds": 0, "code": 3, "pid": str(folder / "pid"), "characters": 0}
executor = RayExecutor(work, "local", folder)
executor.start(Job("toy/1", request, folder / "log", uses_gpu=False, memory_bytes=10_000_000))
while not (ended := executor.wait()):
    pass
executor.stop()
print(json.dumps([[each.name, each.code, each.output] for each in ended]))
"""


def run(folder: Path, plan: str, *options: str) -> Any:
    """What `llmrepair run` with the ray executor answers."""
    (folder / "study.toml").write_text(plan)
    command = [sys.executable, "-c", "from llmrepair.cli.main import main; main()", "run", "study.toml", "--json"]
    command += ["--executor", "ray", *options]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.stress
def test_a_plan_runs_on_a_cluster(tmp_path: Path) -> None:
    with two_nodes(tmp_path / "ray.log") as nodes:
        plan = '[grid]\ncompressions = ["none", "rtn"]\n[defaults]\nlimit = 10\n'
        answer = run(tmp_path, plan, "--ray-address", nodes.address)
    assert [stage["outcome"] for stage in answer["stages"]] == ["done"] * 4
    assert len(list((tmp_path / "runs" / "evaluate").iterdir())) == 2


@pytest.mark.stress
def test_without_an_address_a_cluster_is_started_on_this_machine(tmp_path: Path) -> None:
    assert run(tmp_path, '[[include]]\nmethod = "none"\nlimit = 5\n')["done"] == 2


def test_a_job_runs_in_a_worker_of_a_cluster(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ONE_JOB, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [[name, code, output]] = json.loads(done.stdout.splitlines()[-1])
    assert (name, code) == ("toy/1", 3)
    assert json.loads(output)["OMP_NUM_THREADS"] == "1"
    assert (tmp_path / "log").read_text() == "a warning\n"

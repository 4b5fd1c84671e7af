"""The ray executor on this machine; a cluster of two nodes is for `make stress`, and `tests/stress` has nodes that die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ray_nodes import ENVIRONMENT, two_nodes


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


def test_without_an_address_a_cluster_is_started_on_this_machine(tmp_path: Path) -> None:
    assert run(tmp_path, '[[include]]\nmethod = "none"\nlimit = 5\n')["done"] == 2

"""The ray executor on a cluster of two nodes on this machine; `tests/stress` has the nodes that die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.ray_nodes import ENVIRONMENT, two_nodes


def test_a_plan_runs_on_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('[grid]\ncompressions = ["none", "rtn"]\n[defaults]\nlimit = 10\n')
    run = [sys.executable, "-c", "from llmrepair.cli.main import main; main()", "run", "study.toml", "--json"]
    with two_nodes(tmp_path / "ray.log") as nodes:
        command = [*run, "--executor", "ray", "--ray-address", nodes.address]
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [stage["outcome"] for stage in json.loads(done.stdout)["stages"]] == ["done"] * 4
    assert len(list((tmp_path / "runs" / "evaluate").iterdir())) == 2

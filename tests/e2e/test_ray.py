"""The ray executor on a cluster of two nodes on this machine; `tests/stress` has the nodes that die."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A head and a second node, one CPU each, that end with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
    head = [*start, "--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false"]
    with (tmp_path / "ray.log").open("w") as log:
        nodes = [subprocess.Popen(head, env=ENVIRONMENT, stdout=log, stderr=log)]
        wait_for(address)
        nodes.append(subprocess.Popen([*start, f"--address={address}"], env=ENVIRONMENT, stdout=log, stderr=log))
        yield address
        for node in reversed(nodes):
            node.terminate()
            node.wait(60)


def wait_for(address: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(300):
        with socket.socket() as knock:
            if knock.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    pytest.fail("the head of the cluster did not start")


def test_a_plan_runs_on_a_cluster(tmp_path: Path, address: str) -> None:
    (tmp_path / "study.toml").write_text('[grid]\ncompressions = ["none", "rtn"]\n[defaults]\nlimit = 10\n')
    run = [sys.executable, "-c", "from llmrepair.cli.main import main; main()", "run", "study.toml", "--json"]
    command = [*run, "--executor", "ray", "--ray-address", address]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [stage["outcome"] for stage in json.loads(done.stdout)["stages"]] == ["done"] * 4
    assert len(list((tmp_path / "runs" / "evaluate").iterdir())) == 2

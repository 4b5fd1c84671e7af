"""A Ray cluster of two nodes on the loopback interface, each started as a user starts one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Ray makes a token in the home folder when it starts on its own, and that file alone turns tokens on for the next head.
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
_START = ("start", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=1")
_STARTED = "Ray runtime started"
_SECONDS_TO_START = 60


@dataclass
class Nodes:
    address: str
    head: subprocess.Popen[bytes]
    second: subprocess.Popen[bytes]

    def lose_second(self) -> None:
        """As if the machine were switched off: all that runs on it dies at once."""
        os.killpg(self.second.pid, signal.SIGKILL)
        self.second.wait()


@contextmanager
def two_nodes(log: Path) -> Iterator[Nodes]:
    """A head and a second node, one CPU each; what they say goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as file:
        head = _start(file, "--head", f"--port={port}", "--include-dashboard=false")
        try:
            _wait(log, nodes=1)
            second = _start(file, f"--address=127.0.0.1:{port}")
            try:
                _wait(log, nodes=2)
                yield Nodes(f"127.0.0.1:{port}", head, second)
            finally:
                _end(second)
        finally:
            _end(head)


def _start(log: object, *options: str) -> subprocess.Popen[bytes]:
    ray = str(Path(sys.executable).with_name("ray"))
    # A session of its own, so that a node can die as one.
    return subprocess.Popen([ray, *_START, *options], env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)  # type: ignore[call-overload,no-any-return]


def _end(node: subprocess.Popen[bytes]) -> None:
    node.terminate()
    node.wait(60)


def _wait(log: Path, nodes: int) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while log.read_text().count(_STARTED) < nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"a node did not start: {log.read_text()}")
        time.sleep(0.2)

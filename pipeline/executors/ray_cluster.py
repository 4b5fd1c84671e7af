"""Stages on the nodes of a Ray cluster that share the folder of artifacts.

A task starts the same worker process that `local` starts, on the node that Ray chooses. When a node or its worker dies,
Ray runs the task again elsewhere; it finds the lock of the dead, takes it over, and goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.executors.base import Ended, Executor, Job
from llmrepair.pipeline.executors.workers import Answer, Worker

_WAIT_SECONDS = 0.5
_POLL_SECONDS = 0.2
_RETRIES = 3
_SECONDS_TO_ANSWER = 60
_SECONDS_TO_CONNECT = 10


class RayExecutor(Executor):
    """Hands stages to a Ray cluster, all that are ready at once; Ray queues what does not fit.

    Args:
        answer: what a worker process runs.
        address: of the cluster, as for `ray.init`; `local` starts one on this machine.
        root: the folder of artifacts, which every node must see at the same path.
        preload: modules that the workers need.

    Raises:
        RequestError: Ray is not installed, there is no such cluster, or a node does not see `root`.
    """

    def __init__(self, answer: Answer, address: str, root: Path, preload: Sequence[str] = ()):
        self._ray = _connect(address)
        self._answer = answer
        self._preload = preload
        self._running: dict[Any, Job] = {}
        self._has_gpus = self._ray.cluster_resources().get("GPU", 0) > 0
        self._check_shared(root)

    def _check_shared(self, root: Path) -> None:
        """Every node must read what this process writes below `root`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token = root / f".shared-{secrets.token_hex(8)}"
        token.touch()
        try:
            look = self._ray.remote(num_cpus=0, max_retries=0)(_sees)
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            answers = [
                look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(str(token))
                for node in nodes
            ]
            blind = [
                node["NodeManagerAddress"]
                for node, sees in zip(nodes, self._ray.get(answers, timeout=_SECONDS_TO_ANSWER), strict=True)
                if not sees
            ]
        finally:
            token.unlink()
        if blind:
            raise RequestError(
                Problem(
                    f"`{root}` is not shared: node {', '.join(blind)} does not see what this machine writes there",
                    "choose with --runs DIR a folder that all nodes mount at the same path",
                )
            )

    def has_room(self, job: Job) -> bool:
        return True

    def start(self, job: Job) -> None:
        task = self._ray.remote(_run_worker).options(
            name=job.name,
            num_cpus=1,
            num_gpus=1 if job.uses_gpu and self._has_gpus else 0,
            memory=job.memory_bytes,
            max_retries=_RETRIES,
        )
        self._running[task.remote(self._answer, self._preload, job)] = job

    def wait(self) -> list[Ended]:
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_WAIT_SECONDS)
        return [self._ended(reference, self._running.pop(reference)) for reference in ready]

    def _ended(self, reference: Any, job: Job) -> Ended:
        try:
            return Ended(job.name, *self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            problem = Problem(f"it was lost: {str(error).splitlines()[0]}", "look at the cluster with `ray status`")
            return Ended(job.name, 1, json.dumps({"errors": [problem.as_json()]}))

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}
        self._ray.shutdown()  # or it goes on printing what happens in the cluster


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise RequestError(Problem("Ray is not installed", "pip install 'llmrepair[ray]'")) from error
    try:
        _knock(address)
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RequestError(
            Problem(
                f"no Ray cluster answers at `{address}`: {reason}",
                "start one with `ray start --head`, or give its --ray-address",
            )
        ) from error
    return ray


def _knock(address: str) -> None:
    """Fails at once where nobody listens; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()


def _sees(path: str) -> bool:
    return Path(path).exists()


def _run_worker(answer: Answer, preload: Sequence[str], job: Job) -> tuple[int, str]:
    """Runs on a node: the worker's exit code and what it answered."""
    worker = Worker(answer, preload, job, {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
    while (ended := worker.ended()) is None:
        time.sleep(_POLL_SECONDS)
    return ended.code, ended.output

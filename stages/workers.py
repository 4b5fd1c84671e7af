"""Worker processes: what one does for a stage, and what starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import INTERRUPTED, LlmrepairError, Problem, WorkError
from llmrepair.pipeline.executors.base import Executor
from llmrepair.pipeline.graph import Node
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.stages.request import MAKERS
from llmrepair.stages.running import gpus, make_runner


def local_executor(runner: Runner, missing: Sequence[Node]) -> Executor:
    """As many workers on this machine as it has GPUs, or cores."""
    return make_executor("local", None, "", runner, missing)


def make_executor(name: str, jobs: int | None, ray_address: str, runner: Runner, missing: Sequence[Node]) -> Executor:
    """What computes stages.

    Args:
        name: `local` or `ray`.
        jobs: the most at a time; None for as many as the machine has GPUs, or cores.
        missing: the stages.
    """
    preload = sorted({module for node in missing for module in node.stage.modules()})
    if name == "ray":
        from llmrepair.pipeline.executors.ray_cluster import RayExecutor

        return RayExecutor(answer, ray_address, runner.store.root, preload)
    from llmrepair.pipeline.executors.local import LocalExecutor, cores

    available = gpus(runner.runtime.device)
    return LocalExecutor(answer, jobs or min(len(missing), len(available) or cores()), available, preload)


def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Computes one stage: exit code, and the outcome or the errors."""
    try:
        return 0, _compute(request)
    except KeyboardInterrupt:
        return INTERRUPTED, {"errors": []}
    except LlmrepairError as error:
        return error.exit_code, {"errors": [problem.as_json() for problem in error.problems]}
    except Exception as error:
        problem = Problem(f"{type(error).__name__}: {error}", f"this is a bug; the log has a traceback: {request['log']}")
        return 1, {"errors": [problem.as_json()]}


def _compute(request: dict[str, Any]) -> dict[str, Any]:
    folder = Path(request["folder"])
    if not folder.is_dir():
        raise WorkError(
            Problem(f"there is no folder `{folder}` on this node", "share it among the nodes, or give absolute paths")
        )
    os.chdir(folder)
    options = request["options"] | {"device": _of_worker(request["options"].get("device", "auto"))}
    stage = MAKERS[request["stage"]](options)
    runner = make_runner(options, Path(request["runs"]), Reporter(quiet=True))
    graph = runner.graph([stage])
    if graph.targets != [request["name"]]:
        hint = "run the plan again; on a cluster, install the same version of everything on all nodes"
        raise WorkError(Problem(f"what `{request['name']}` is made from has changed since the plan was read", hint))
    return runner.compute(graph.nodes[request["name"]]).as_json()


def _of_worker(device: str) -> str:
    """What a worker, which sees no other GPU than its own, calls a device: `cuda:1` is its first one."""
    return device.partition(":")[0]

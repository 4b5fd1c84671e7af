"""What a worker process does: it computes one stage and answers with one JSON object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llmrepair.cli.main import INTERRUPTED
from llmrepair.pipeline.errors import LlmrepairError, Problem, WorkError


def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Exit code, and the outcome or the errors."""
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
    from llmrepair.cli.running import make_runner
    from llmrepair.pipeline.progress import Reporter
    from llmrepair.stages.graph import make_stage

    folder = Path(request["folder"])
    if not folder.is_dir():
        raise WorkError(
            Problem(f"there is no folder `{folder}` on this node", "share it among the nodes, or give absolute paths")
        )
    os.chdir(folder)
    stage = make_stage(request["stage"], request["options"])
    runner = make_runner(request["options"], Path(request["runs"]), Reporter(quiet=True))
    graph = runner.graph([stage])
    if graph.targets != [request["name"]]:
        hint = "run the plan again; on a cluster, install the same version of everything on all nodes"
        raise WorkError(Problem(f"what `{request['name']}` is made from has changed since the plan was read", hint))
    return runner.compute(graph.nodes[request["name"]]).as_json()

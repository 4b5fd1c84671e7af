"""`demo`: the whole chain on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmrepair.cli.options import DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import print_json
from llmrepair.cli.report import make_report, print_report
from llmrepair.pipeline.pull import pull_all
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.request import evaluate_stage
from llmrepair.stages.running import make_runner
from llmrepair.stages.workers import local_executor

COMPRESSIONS: tuple[dict[str, Any], ...] = ({"method": "gptq", "bits": 3}, {"method": "sparsegpt", "sparsity": 0.5})
TASKS = "lab_qa,lab_mc"
BUDGET = 600_000
"""Half of the default: a model as small as this learns no more from the other half."""


def _recoveries() -> list[str]:
    return [repair.name for repair in REPAIRS.values() if repair.is_standard]


def demo(
    html: Annotated[Path, typer.Option("--html", help="where to write the report")] = Path("report.html"),
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    runner = make_runner({}, runs)
    requests: list[dict[str, Any]] = [{"method": "none", "tasks": TASKS}]
    requests += [{**c, "recovery": recovery, "tasks": TASKS} for c in COMPRESSIONS for recovery in _recoveries()]
    outcomes = pull_all(runner, [evaluate_stage(request | {"budget": BUDGET}) for request in requests], local_executor)
    report = make_report(runner, "lab", None, {"html": html})
    if as_json:
        print_json(report.as_json() | {"evaluations": [outcome.as_json() for outcome in outcomes]})
    else:
        print_report(report.artifact)

"""`demo`: the whole chain on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmrepair.cli.options import JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import print_json
from llmrepair.cli.report import make_report, print_report
from llmrepair.cli.running import DEFAULT_RUNS, make_runner
from llmrepair.cli.side_by_side import pull_all
from llmrepair.stages.graph import evaluate_stage

COMPRESSIONS: tuple[dict[str, Any], ...] = ({"method": "gptq", "bits": 3}, {"method": "sparsegpt", "sparsity": 0.5})
RECOVERIES = ("none", "prompt", "idp", "lora")
TASKS = "lab_qa,lab_mc"
BUDGET = 600_000
"""Half of the default: a model as small as this learns no more from the other half."""


def demo(
    html: Annotated[Path, typer.Option("--html", help="where to write the report")] = Path("report.html"),
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    runner = make_runner({}, runs)
    requests: list[dict[str, Any]] = [{"method": "none", "tasks": TASKS}]
    requests += [{**c, "recovery": recovery, "tasks": TASKS} for c in COMPRESSIONS for recovery in RECOVERIES]
    outcomes = pull_all(runner, [evaluate_stage(request | {"budget": BUDGET}) for request in requests])
    report = make_report(runner, "lab", None, {"html": html})
    if as_json:
        print_json(report.as_json() | {"evaluations": [outcome.as_json() for outcome in outcomes]})
    else:
        print_report(report.artifact)

"""`report`: what the finished evaluations of a model found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrepair.cli.options import JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import console, print_json
from llmrepair.cli.running import DEFAULT_RUNS, make_runner
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Outcome
from llmrepair.stages.fields import ModelConfig
from llmrepair.stages.graph import validated
from llmrepair.stages.report import Report, ReportConfig, collect_evaluations
from llmrepair.stages.sources import resolve_model

if TYPE_CHECKING:
    from rich.table import Table


def report(
    model: Annotated[str, typer.Option("--model", help="the model whose evaluations to report")] = "lab",
    revision: Annotated[str | None, typer.Option("--revision", help="branch, tag or commit of a Hub id")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="also write the report here, as one HTML file")] = None,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    runner = make_runner({}, runs)
    outcome = make_report(runner, model, revision, html)
    if as_json:
        print_json(outcome.as_json())
    else:
        print_report(outcome.artifact)


def make_report(runner: Runner, model: str, revision: str | None, html: Path | None) -> Outcome:
    if html is not None and not html.absolute().parent.is_dir():
        raise RequestError(Problem(f"there is no folder `{html.parent}`", "create it, or choose another place with --html"))
    validated({"model": model}, ModelConfig)
    identity = resolve_model(model, revision, runner.store.digests.digest).identity
    evaluations, stale = collect_evaluations(runner, identity)
    if stale:
        runner.reporter.note(f"{stale} evaluations were left out: code has changed since, or what they were made of is gone")
    if not evaluations:
        hint = "run `llmrepair eval` for it first, or `llmrepair demo` for the embedded model"
        raise RequestError(Problem(f"no evaluation of `{model}` is in `{runner.store.root}`", hint))
    outcome = runner.pull(Report(ReportConfig(model=model), evaluations))
    if html is not None:
        shutil.copyfile(outcome.artifact.path / "report.html", html)
        runner.reporter.say(f"wrote {html}")
    return outcome


def print_report(artifact: Artifact) -> None:
    from llmrepair.pipeline.units import bytes_text
    from llmrepair.stages.report.text import COMPARISON_HEADS, comparison_cells, count_text, repair_text, score_text

    found: Mapping[str, Any] = artifact.read_json("report.json")
    scores = [
        [
            row["compression"],
            repair_text(row),
            *(score_text(row["scores"].get(column["name"]), column) for column in found["columns"]),
            count_text(row["extra_parameters"]),
            bytes_text(row["size_bytes"]),
        ]
        for row in found["rows"]
    ]
    out = console()
    heads = [f"{column['title']}\n{column['metric']}" for column in found["columns"]]
    out.print(f"{found['title']}, with 95 % intervals\n")
    out.print(_table(["compression", "repair", *heads, "extra\nparameters", "size"], scores))
    if compared := comparison_cells(found):
        out.print("\nRepairs against the compressed model, item by item\n")
        out.print(_table([head.replace(", ", ",\n") for head in COMPARISON_HEADS], compared))
    out.print("\nFound")
    for sentence in found["findings"]:
        out.print(f"- {sentence}", markup=False)


def _table(heads: list[str], rows: list[list[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table

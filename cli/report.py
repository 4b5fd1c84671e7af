"""`report`: what the finished evaluations of a model found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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
    evaluations, stale = collect_evaluations(runner.store, identity)
    if stale:
        runner.reporter.note(f"{stale} evaluations were left out: code has changed since, or what they were made of is gone")
    if not evaluations:
        hint = "run `llmrepair eval` for it first, or `llmrepair demo` for the embedded model"
        raise RequestError(Problem(f"no evaluation of `{model}` is in `{runner.store.root}`", hint))
    outcome = runner.pull(Report(ReportConfig(title=model), evaluations))
    if html is not None:
        shutil.copyfile(outcome.artifact.path / "report.html", html)
        runner.reporter.say(f"wrote {html}")
    return outcome


def print_report(artifact: Artifact) -> None:
    from rich.table import Table

    from llmrepair.stages.report.text import bytes_text, count_text, score_text

    found: Mapping[str, Any] = artifact.read_json("report.json")
    table = Table(title=found["title"], title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("compression")
    table.add_column("repair")
    for column in found["columns"]:
        table.add_column(f"{column['title']}\n{column['metric']}", justify="right")
    for name in ("extra\nparameters", "\nsize"):
        table.add_column(name, justify="right")
    for row in found["rows"]:
        scores = [score_text(row["scores"].get(column["name"]), column) for column in found["columns"]]
        repair = f"{row['recovery']} ({row['detail']})" if row["detail"] else row["recovery"]
        table.add_row(row["compression"], repair, *scores, count_text(row["extra_parameters"]), bytes_text(row["size_bytes"]))
    out = console()
    out.print(table)
    out.print("\nFound, with 95 % intervals:")
    for sentence in found["findings"]:
        out.print(f"- {sentence}", markup=False)

"""`report`: what the finished evaluations of a model found."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrepair.cli.options import ANY_VERSION_OPTION, DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import console, print_json
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Outcome
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.report.collect import report_of
from llmrepair.stages.report.files import DOCUMENT_FILE
from llmrepair.stages.request import validated
from llmrepair.stages.results.collect import collect_evaluations, is_of_model, up_to_date
from llmrepair.stages.running import make_runner
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.models import resolve_model

if TYPE_CHECKING:
    from rich.table import Table

STANDARD_OUTPUT = Path("-")


_FILE = "; `-` for standard output"


def report(
    model: Annotated[str, typer.Option("--model", help="the model whose evaluations to report")] = "lab",
    revision: Annotated[str | None, typer.Option("--revision", help="branch, tag or commit of a Hub id")] = None,
    html: Annotated[Path | None, typer.Option("--html", help=f"also write the report as one HTML file{_FILE}")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help=f"also write its table in Markdown{_FILE}")] = None,
    latex: Annotated[Path | None, typer.Option("--latex", help=f"also write its table in LaTeX, for booktabs{_FILE}")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help=f"also write all metrics as CSV, one number a line{_FILE}")] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help=f"also draw the verdicts of conjecture tests as SVG{_FILE}")
    ] = None,
    any_version: ANY_VERSION_OPTION = False,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    given = {"html": html, "markdown": markdown, "latex": latex, "csv": csv, "figure": figure}
    files = {name: path for name, path in given.items() if path is not None}
    to_output = [f"--{name} -" for name, path in files.items() if path == STANDARD_OUTPUT] + ["--json"] * as_json
    if len(to_output) > 1:
        hint = "give one of them, and the others a file"
        raise RequestError(Problem(f"{' and '.join(to_output)} cannot share standard output", hint))
    runner = make_runner({"any_version": any_version}, runs)
    outcome = make_report(runner, model, revision, files)
    if as_json:
        print_json(outcome.as_json())
    elif not to_output:
        print_report(outcome.artifact)


def make_report(runner: Runner, model: str, revision: str | None, files: Mapping[str, Path]) -> Outcome:
    """Computes the report, and writes it to `files`: by `html`, `markdown`, `latex`, `csv`, `figure`."""
    _check_places(files)
    validated({"model": model}, ModelConfig)
    identity = resolve_model(model, revision, runner.store.digests.digests).identity
    every = collect_evaluations(runner, is_of_model(identity))
    evaluations = up_to_date(runner, every)
    if stale := len(every) - len(evaluations):
        reason = "code or versions of libraries have changed since"
        runner.reporter.note(f"{stale} evaluations were left out: {reason}; `--any-version` takes those of other versions")
    report = report_of(model, identity, evaluations, runner)
    for text in report.left_out:
        runner.reporter.note(text)
    if not evaluations:
        hint = "run `llmrepair eval` for it first, or `llmrepair demo` for the embedded model"
        raise RequestError(Problem(f"no evaluation of `{model}` is in `{runner.store.root}`", hint))
    if "figure" in files and not report.verdicts:
        hint = "run `llmrepair conjecture` for it first"
        raise RequestError(
            Problem(f"no conjecture test of `{model}` is in `{runner.store.root}`, so there is nothing to draw", hint)
        )
    outcome = runner.pull(report)
    document = outcome.artifact.read_json(DOCUMENT_FILE)
    for name, path in files.items():
        _write(_rendered(name, document, _relative(runner.store.root, path)), path, runner.reporter)
    return outcome


def _check_places(files: Mapping[str, Path]) -> None:
    problems = [
        Problem(f"there is no folder `{path.parent}`", f"create it, or choose another place with --{name}")
        for name, path in files.items()
        if path != STANDARD_OUTPUT and not path.absolute().parent.is_dir()
    ]
    if problems:
        raise RequestError(*problems)


def _rendered(name: str, document: Mapping[str, Any], store: str) -> str:
    from llmrepair.stages.report.html import render_html
    from llmrepair.stages.report.long_form import csv_text
    from llmrepair.stages.report.paper import latex, markdown
    from llmrepair.stages.report.verdict_figure import verdict_figure

    if name == "html":
        return render_html(document, store, DIAGNOSTICS.values())
    return {"markdown": markdown, "latex": latex, "csv": csv_text, "figure": verdict_figure}[name](document)


def _relative(root: Path, path: Path) -> str:
    """Where the artifacts are as seen from a file; from standard output, as from here."""
    return Path(os.path.relpath(root, path.absolute().parent)).as_posix()


def _write(text: str, path: Path, reporter: Reporter) -> None:
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(Problem(f"`{path}` cannot be written: {error.strerror}", "choose another place")) from error
    reporter.say(f"wrote {path}")


def print_report(artifact: Artifact) -> None:
    from llmrepair.pipeline.units import bytes_text
    from llmrepair.stages.drawing.numbers import (
        CHANGES_NOTE,
        COMPARISON_HEADS,
        comparison_cells,
        count_text,
        repair_text,
        score_text,
    )

    found: Mapping[str, Any] = artifact.read_json(DOCUMENT_FILE)
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
    for verdict in found["verdicts"]:
        for sentence in verdict["sentences"]:
            out.print(f"{sentence}\n", markup=False)
    heads = [f"{column['title']}\n{column['metric']}" for column in found["columns"]]
    out.print(f"{found['title']}, with 95 % intervals\n")
    out.print(_table(["compression", "repair", *heads, "extra\nparameters", "size"], scores))
    if compared := comparison_cells(found):
        out.print("\nRepairs against the compressed model, item by item\n")
        out.print(_table([head.replace(", ", ",\n") for head in COMPARISON_HEADS], compared))
        out.print(f"\n{CHANGES_NOTE}")
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

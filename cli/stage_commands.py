"""One stage each, and whatever it needs: `compress`, `control`, the tunings, `eval`, the diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmrepair.cli.options import DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION, Panels, with_options
from llmrepair.cli.output import console, flat, print_json, print_table
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.stage import Outcome, Runtime, Stage
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.diagnostics.base import Table
from llmrepair.stages.repairs import MEASURED, TUNINGS
from llmrepair.stages.request import (
    COMPRESSION,
    EVALUATION,
    MAKERS,
    WEIGHTS,
    Values,
    diagnostic_panels,
    measuring_panels,
    notes,
    tuning_panels,
)
from llmrepair.stages.running import make_runner


def command(stage: str) -> Callable[..., None]:
    """What makes one stage, by its name."""
    build = MAKERS[stage]

    @with_options({**_panels(stage), "Running": [Runtime]})
    def of_stage(values: Values, runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
        _pull(build, values, runs, as_json)

    return of_stage


def _panels(stage: str) -> Panels:
    if stage in TUNINGS:
        return {**tuning_panels([TUNINGS[stage]]), **WEIGHTS}
    if stage in MEASURED:
        return measuring_panels(MEASURED[stage])
    if stage in DIAGNOSTICS:
        return diagnostic_panels(DIAGNOSTICS[stage])
    return {"compress": COMPRESSION, "control": WEIGHTS, "evaluate": EVALUATION}[stage]


def _tables(artifact: Artifact) -> list[Table]:
    """What a diagnostic says of its result; nothing of other stages."""
    if artifact.stage not in DIAGNOSTICS:
        return []
    diagnostic = DIAGNOSTICS[artifact.stage]
    return diagnostic.tables(artifact.read_json(diagnostic.result_file))


def _pull(build: Callable[[Values], Stage], values: Values, runs: Path, as_json: bool) -> None:
    stage = build(values)
    runner = make_runner(values, runs)
    for text in notes(stage, values):
        runner.reporter.note(text)
    outcome = runner.pull(stage)
    if as_json:
        print_json(outcome.as_json())
    else:
        _print_outcome(outcome)


def _print_outcome(outcome: Outcome) -> None:
    out, tables = console(), _tables(outcome.artifact)
    for table in tables:
        out.print(f"{table.title}\n", markup=False, soft_wrap=True)
        print_table(table.heads, table.rows, right=table.heads[table.words :])
        out.print()
    for name, value in flat(outcome.artifact.metrics) if not tables else ():
        out.print(f"{name:<44} {value}", markup=False)
    out.print(f"{'path':<44} {outcome.artifact.path}", markup=False, soft_wrap=True)

"""`ls` and `show`: what is in the store."""

from __future__ import annotations

from typing import Annotated

import typer

from llmrepair.cli.options import JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import console, print_json
from llmrepair.cli.running import DEFAULT_RUNS
from llmrepair.cli.stage_commands import flat
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.store import Store


def list_artifacts(runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    artifacts = list(Store(runs).artifacts())
    if as_json:
        print_json({"artifacts": [_summary(artifact) for artifact in artifacts]})
        return
    from rich.table import Table

    from llmrepair.stages.report.text import bytes_text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "key", "what", "made", "seconds", "size"):
        table.add_column(name, justify="right" if name in ("seconds", "size") else "left")
    for artifact in artifacts:
        record = artifact.record
        seconds = f"{record['seconds']:.1f}"
        table.add_row(artifact.stage, artifact.key, record["label"], record["started"], seconds, bytes_text(artifact.size))
    console().print(table)


def show(
    key: Annotated[str, typer.Argument(help="a key, or the start of one")],
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    artifact = Store(runs).resolve(key)
    if as_json:
        print_json(_summary(artifact) | {"key_document": artifact.key_document, "record": artifact.record})
        return
    out = console()
    out.print(f"{artifact.name}  {artifact.record['label']}\n{artifact.path}", markup=False, soft_wrap=True)
    document = artifact.key_document
    sections = {"made from": {**document["config"], **document["inputs"]}, "metrics": artifact.metrics}
    record = {name: value for name, value in artifact.record.items() if name not in ("metrics", "label")}
    for title, values in {**sections, "record": record}.items():
        out.print(f"\n{title}")
        for name, value in flat(values):
            out.print(f"  {name:<42} {value}", markup=False, soft_wrap=True)


def _summary(artifact: Artifact) -> dict[str, object]:
    return {
        "stage": artifact.stage,
        "key": artifact.key,
        "path": str(artifact.path),
        "label": artifact.record["label"],
        "started": artifact.record["started"],
        "seconds": artifact.record["seconds"],
        "size_bytes": artifact.size,
        "metrics": artifact.metrics,
    }

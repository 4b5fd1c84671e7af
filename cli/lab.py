"""`lab train`, `lab data`: how the embedded models and tasks were made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrepair.cli.options import JSON_OPTION
from llmrepair.cli.output import print_json
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.progress import Reporter
from llmrepair.stages.sources.lab import LAB_MODELS, UNTOLD

lab_app = typer.Typer(help="Make the embedded models and their task data again.")


@lab_app.command("train")
def train(
    model: Annotated[str, typer.Option("--model", help="lab, lab-opt, lab-erased, lab-opt-erased or all")] = "all",
    to: Annotated[Path, typer.Option("--to", help="folder that gets a folder per model")] = Path("lab-weights"),
    as_json: JSON_OPTION = False,
) -> None:
    """Train the embedded models from nothing, on one core."""
    names = (*LAB_MODELS, *UNTOLD.values())
    if model not in (*names, "all"):
        raise RequestError(Problem(f"there is no lab model `{model}`", f"give --model {', '.join(names)} or all"))
    from llmrepair.lab.train import RECIPES, train_lab_model

    reporter = Reporter()
    records = {}
    for name in names if model == "all" else (model,):
        reporter.say(f"training {name} ...")
        with reporter.bar(name, RECIPES[name].steps) as bar:
            records[name] = train_lab_model(name, to / name, lambda step, loss: bar.advance(note=f"loss {loss:.3f}"))
        reporter.say(f"wrote {to / name}: {records[name]['seconds']:.0f} s, loss {records[name]['final_loss']}")
    if as_json:
        print_json(records)


@lab_app.command("data")
def data(
    to: Annotated[Path, typer.Option("--to", help="folder that gets a file per task")] = Path("lab-data"),
    as_json: JSON_OPTION = False,
) -> None:
    """Write the documents of the lab's tasks."""
    from llmrepair.lab.tasks import write_data

    write_data(to)
    if as_json:
        print_json({"path": str(to)})

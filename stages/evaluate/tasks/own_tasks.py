"""Tasks and groups that are ours and not lm-eval's. A new one is registered here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrepair.lab.tasks import LAB_TASKS, data_file, task_config
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.evaluate.tasks import factrecall


@dataclass(frozen=True)
class OwnTask:
    """Each function is given the folder of --tasks-data, or None."""

    config: Callable[[Path | None], dict[str, Any]]
    """What lm-eval takes as the task; asked for where it runs, so it may import lm-eval."""
    files: Callable[[Path | None], Mapping[str, Path]]
    """What it reads: a name for each file, and where it is."""
    problem: Callable[[Path | None], Problem | None] = lambda data: None
    """What keeps it from running."""


def _lab_task(name: str) -> OwnTask:
    return OwnTask(config=lambda data: task_config(name), files=lambda data: {data_file(name).name: data_file(name)})


def _factrecall_config(data: Path | None) -> dict[str, Any]:
    from llmrepair.stages.evaluate.tasks.factrecall_task import task_config as factrecall_config

    assert data is not None  # was checked
    return factrecall_config(data)


OWN_TASKS: Mapping[str, OwnTask] = {
    **{name: _lab_task(name) for name in LAB_TASKS},
    factrecall.FACTRECALL: OwnTask(_factrecall_config, factrecall.files, factrecall.folder_problem),
}
NINE = ("arc_easy", "arc_challenge", "sciq", "webqs", "triviaqa", "piqa", "hellaswag", "lambada_openai", "wikitext")
"""World knowledge, commonsense and language: our choice, for the paper's abstract says nine tasks and names none."""
GROUPS: Mapping[str, Sequence[str]] = {"nine": NINE, "lab": LAB_TASKS}

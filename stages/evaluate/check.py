"""What is wrong with the documents of tasks that are read from files, by file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.lab.tasks import LAB_TASKS, data_file
from llmrepair.pipeline.errors import LlmrepairError, Problem, RequestError
from llmrepair.pipeline.reading import json_lines, reason
from llmrepair.stages.evaluate.tasks.task_data import files_in

if TYPE_CHECKING:
    from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig

_HINT = "mend the line, or leave the task out"


def document_problems(stage: Evaluate) -> list[Problem]:
    """Of each file the first thing that is wrong; where all can be read, of each task the first document that cannot be asked.

    Documents of the Hub, and of the lab, are taken as they are.
    """
    folder = stage.config.tasks_data
    if (problem := _limit_problem(stage)) is not None:
        return [problem]
    if folder is None or not all("data" in identity for identity in stage.task_identities.values()):
        return []
    asked = stage.config.model_copy(update={"recovery": "none"})  # whatever is done to the model, the same is asked
    return list(_problems(folder, asked, json.dumps(stage.task_identities, sort_keys=True)))


def _limit_problem(stage: Evaluate) -> Problem | None:
    """Says so if each task has fewer documents than are asked for: the same evaluation would have another key."""
    limit, folder = stage.config.limit, stage.config.tasks_data
    files = [_asked(name, folder) for name in stage.task_identities]
    if limit is None or None in files:
        return None
    most = max(sum(map(_lines, of_task)) for of_task in files if of_task is not None)
    if limit <= most:
        return None
    message = f"--limit {limit} is more than the {most} documents that there are"
    return Problem(message, f"leave it out, or give {most} or less", "limit")


def _asked(task: str, folder: Path | None) -> list[Path] | None:
    """The files whose lines a task asks; None where they are not in a folder that is known."""
    if task in LAB_TASKS:
        return [data_file(task)]
    return [files_in(folder, task)["test"]] if folder is not None and "test" in files_in(folder, task) else None


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


@lru_cache(maxsize=64)
def _problems(folder: Path, config: EvaluateConfig, identities: str) -> tuple[Problem, ...]:
    """The same for all evaluations that ask the same."""
    files = {task: files_in(folder, task) for task in json.loads(identities)}
    try:
        rows = {task: _rows(of_task["test"]) for task, of_task in files.items() if "test" in of_task}
        for of_task in files.values():
            if "train" in of_task:
                _rows(of_task["train"])
        return tuple(_unaskable(config, json.loads(identities), files, rows))
    except LlmrepairError as error:
        return tuple(error.problems)


def _rows(path: Path) -> dict[int, dict[str, Any]]:
    """Line -> document."""
    rows = dict(json_lines(path, _HINT, "tasks_data"))
    if not rows:
        raise RequestError(
            Problem(f"{path} holds no documents", "put the documents there, or leave the task out", "tasks_data")
        )
    return rows


def _unaskable(
    config: EvaluateConfig,
    identities: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Path]],
    rows: Mapping[str, Mapping[int, dict[str, Any]]],
) -> Iterator[Problem]:
    from llmrepair.stages.evaluate.tasks.loading import load_tasks, templates_compiled_once

    tasks = load_tasks(config, identities)["tasks"]
    with templates_compiled_once():
        for name in rows:
            path, task = files[name]["test"], tasks[name]
            for place, document in islice(_documents(task, path, rows[name]), config.limit):
                if (fault := _fault(task, document)) is not None:
                    yield Problem(f"{place} cannot be asked by task `{name}`: {fault}", _HINT, "tasks_data")
                    break


def _documents(task: Any, path: Path, rows: Mapping[int, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Each that is asked, and where it stands. A field that a line lacks is there in lm-eval's documents, and holds nothing; so
    lines stand for them, but for tasks that make their documents of them."""
    places = [f"{path}:{line}" for line in rows]
    if task.config.process_docs is None:
        return zip(places, rows.values(), strict=True)
    if len(rows) != len(task.eval_docs):  # some are left out
        places = [f"document {number} of {path}" for number in range(len(task.eval_docs))]
    return zip(places, task.eval_docs, strict=True)


def _fault(task: Any, document: Any) -> str | None:
    """What keeps a task from asking a document, in a few words."""
    try:
        text, gold = task.doc_to_text(document), task.doc_to_target(document)
        if task.OUTPUT_TYPE != "multiple_choice":
            return None
        choices, golds = list(task.doc_to_choice(document)), text if task.multiple_input else gold
        wrong = [each for each in (golds if isinstance(golds, list) else [golds]) if not _is_choice(each, choices)]
    except Exception as error:  # it is the code of its authors, over data of any shape
        return reason(error)
    return f"its answer `{wrong[0]}` is none of its {len(choices)} choices" if wrong else None


def _is_choice(gold: Any, choices: Sequence[Any]) -> bool:
    return 0 <= gold < len(choices) if isinstance(gold, int) else gold in choices

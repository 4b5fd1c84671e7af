"""Where the documents of lm-eval's tasks are: on the Hub or in its cache, in a user's folder, in files that a task names."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.stages.evaluate.tasks.definitions import Task
from llmrepair.stages.evaluate.tasks.obstacles import listed
from llmrepair.stages.evaluate.tasks.web_questions import documents_of
from llmrepair.stages.sources.hub import hub_commit, hub_data_location, looks_like_hub_id

_FILE_FORMATS = ("json", "csv", "text", "parquet", "arrow")
_COLUMNS = "put the documents there, in the columns of the data set on the Hub, or leave --tasks-data out"


def data_problems(tasks: Sequence[Task], folder: Path | None) -> list[Problem]:
    """What is missing of the tasks' documents, as far as that can be seen on this machine.

    Args:
        folder: that of --tasks-data, which takes the place of the Hub.
    """
    problems = []
    for task in tasks:
        patterns = [pattern for pattern, paths in _own_files(task.config).items() if not paths]
        problems += [Problem(f"task `{task.name}` reads `{each}`, which is not there", "mend the path") for each in patterns]
    if folder is None:
        return problems
    by_itself = [task.name for task in tasks if _reads_by_itself(task.config)]
    if by_itself:
        hint = "ask for it without --tasks-data"
        problems.append(Problem(f"{listed(by_itself)}: its own code reads the data, and not from a folder", hint, "tasks_data"))
    missing = [
        f"{documents_of(task.name)}.jsonl"
        for task in tasks
        if _on_hub(task.config) and "test" not in files_in(folder, task.name)
    ]
    return problems + ([Problem(f"`{folder}` holds no {', '.join(missing)}", _COLUMNS, "tasks_data")] if missing else [])


def data_identities(tasks: Sequence[Task], folder: Path | None, digest: Callable[[Path], str]) -> dict[str, dict[str, Any]]:
    """Task -> what pins its documents, for a key. Each data set of the Hub is asked for once.

    Raises:
        RequestError: with all data sets that neither the Hub nor the local cache knows.
    """
    commits = _commits(tasks) if folder is None else {}

    def identity(task: Task) -> dict[str, Any]:
        if data_set := _on_hub(task.config):
            if folder is None:
                return {"dataset": data_set[0], "commit": commits[data_set]}
            return {"data": {path.name: digest(path) for path in files_in(folder, task.name).values()}}
        paths = [path for found in _own_files(task.config).values() for path in found]
        return {"data": {str(path): digest(path) for path in paths}} if paths else {}

    return {task.name: identity(task) for task in tasks}


def with_data(config: dict[str, Any], name: str, folder: Path | None, identity: Mapping[str, Any]) -> dict[str, Any]:
    """A task's settings with what was found to be its documents.

    Args:
        identity: what `data_identities` made of it.
    """
    if not _on_hub(config):
        return config
    if folder is not None:
        return config | _from_folder(config, files_in(folder, name))
    location = hub_data_location(identity["dataset"], identity["commit"])
    given = {key: value for key, value in (config.get("dataset_kwargs") or {}).items() if key != "revision"}
    return config | {"dataset_path": location.pop("path"), "dataset_kwargs": given | location}


def without_places(config: dict[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A task's settings without the places on this machine where its documents are."""
    if "dataset" in identity:
        given = (config.get("dataset_kwargs") or {}) | {"revision": identity["commit"]}
        return config | {"dataset_path": identity["dataset"], "dataset_kwargs": given}
    if "data" in identity:
        return config | {"dataset_kwargs": {"data_files": sorted(identity["data"])}}
    return config


def _on_hub(config: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """Name and revision of a task's data set on the Hub; None if its documents are elsewhere."""
    path = config.get("dataset_path")
    if not path or _reads_by_itself(config) or path in _FILE_FORMATS or Path(path).is_dir() or not looks_like_hub_id(path):
        return None
    return path, (config.get("dataset_kwargs") or {}).get("revision")


def _reads_by_itself(config: Mapping[str, Any]) -> bool:
    return bool(config.get("class") or config.get("custom_dataset"))


def _own_files(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Path or pattern that a task's definition names -> the files that it stands for; those on the network do not count."""
    path = config.get("dataset_path")
    if not path or _reads_by_itself(config) or _on_hub(config):
        return {}
    kwargs = config.get("dataset_kwargs") or {}
    named = list(_strings(kwargs.get("data_files"))) or [f"{kwargs.get('data_dir', path)}/**"]
    found = {
        pattern: glob.glob(pattern, recursive=True)  # noqa: PTH207  # a pattern may be absolute
        for pattern in named
        if "://" not in pattern
    }
    return {pattern: [Path(each) for each in sorted(paths) if Path(each).is_file()] for pattern, paths in found.items()}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def files_in(folder: Path, task: str) -> dict[str, Path]:
    """The files of a folder that hold a task's documents: by `test`, those that are asked, and `train`, those for examples."""
    name = documents_of(task)
    files = {"test": folder / f"{name}.jsonl", "train": folder / f"{name}_train.jsonl"}
    return {split: path for split, path in files.items() if path.is_file()}


def _from_folder(config: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """Puts local files in the place of a Hub data set: the same columns, one split that is asked and one for examples.

    Without the latter examples come from the documents that are asked, never the one itself.
    """
    examples = config.get("fewshot_config") or {}
    if "samples" not in examples:
        examples = {**examples, "split": "train" if "train" in files else "test"}
    return {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
        "test_split": "test",
        "validation_split": None,
        "training_split": "train" if "train" in files else None,
        "fewshot_split": None,
        "fewshot_config": examples,
    }


def _commits(tasks: Sequence[Task]) -> dict[tuple[str, str | None], str]:
    problems: list[Problem] = []
    commits = {}
    for data_set in sorted({data_set for task in tasks if (data_set := _on_hub(task.config))}, key=str):
        try:
            commits[data_set] = hub_commit(*data_set, "dataset")
        except RequestError as error:
            problems += error.problems
    if problems:
        raise RequestError(*problems)
    return commits

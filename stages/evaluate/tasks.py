"""Finding lm-eval tasks and their data without lm-eval's own index, which takes ten seconds to build."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmrepair.lab.tasks import LAB_TASKS, data_file, task_config
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.sources import hub_commit, hub_data_location

NINE = ("arc_easy", "arc_challenge", "sciq", "webqs", "triviaqa", "piqa", "hellaswag", "lambada_openai", "wikitext")
"""World knowledge, commonsense and language: our choice, for the paper's abstract says nine tasks and names none."""
GROUPS = {"nine": NINE, "lab": LAB_TASKS}


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Tasks and groups -> tasks, each once, sorted."""
    return tuple(sorted({task for name in names for task in GROUPS.get(name, (name,))}))


def task_problem(task: str) -> Problem | None:
    """Says so if there is no such task."""
    if task in LAB_TASKS or task_file(task) is not None:
        return None
    hint = f"give an lm-eval task, one of {', '.join(LAB_TASKS)}, or the group `nine`"
    return Problem(f"there is no task `{task}`", hint)


def data_problem(task: str, data: Path | None) -> Problem | None:
    """Says so if the folder `data` lacks what a task of lm-eval would read from it."""
    if task in LAB_TASKS or data is None or (data / f"{task}.jsonl").is_file():
        return None
    hint = "put the documents there, in the columns of the data set on the Hub, or leave --tasks-data out"
    return Problem(f"`{data}` holds no {task}.jsonl", hint, "tasks_data")


def task_identity(task: str, data: Path | None, digest: Callable[[Path], str]) -> dict[str, Any]:
    """What pins a task and its data, for a key.

    Raises:
        RequestError: a data set that neither the Hub nor the local cache knows.
    """
    if task in LAB_TASKS:
        return {"data": digest(data_file(task))}
    import importlib.metadata

    identity: dict[str, Any] = {"lm_eval": importlib.metadata.version("lm_eval")}
    if data is not None:
        return identity | {"data": {path.name: digest(path) for path in _local_files(task, data).values()}}
    name = _stock_config(task).get("dataset_path")
    return identity | {"dataset": name, "commit": hub_commit(name, None, "dataset") if name else None}


def load_config(task: str, data: Path | None, identity: dict[str, Any]) -> dict[str, Any]:
    """The task as lm-eval takes it inline.

    Args:
        data: folder with `<task>.jsonl`, and `<task>_train.jsonl` for few-shot examples; None for the Hub.
        identity: what `task_identity` made of it.
    """
    if task in LAB_TASKS:
        return task_config(task)
    from lm_eval.tasks._yaml_loader import load_yaml

    path = task_file(task)
    assert path is not None  # was checked
    config = load_yaml(path)
    config.pop("tag", None)
    if data is not None:
        return config | _local_data(config, task, data)
    if not identity["dataset"]:
        return config
    location = hub_data_location(identity["dataset"], identity["commit"])
    kwargs = (config.get("dataset_kwargs") or {}) | {name: value for name, value in location.items() if name != "path"}
    return config | {"dataset_path": location["path"], "dataset_kwargs": kwargs}


def _local_data(config: dict[str, Any], task: str, data: Path) -> dict[str, Any]:
    """Puts local files in the place of a Hub data set: the same splits, the same columns."""
    files = _local_files(task, data)
    evaluated = "test_split" if config.get("test_split") else "validation_split"
    splits = {evaluated: "test", "training_split": "train" if "train" in files else None}
    unused = {"validation_split": None} if evaluated == "test_split" else {}
    kwargs = {"data_files": {split: str(path) for split, path in files.items()}}
    few_shot = {} if config.get("fewshot_split") is None else {"fewshot_split": None}
    return {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs} | splits | unused | few_shot


def _local_files(task: str, data: Path) -> dict[str, Path]:
    files = {"test": data / f"{task}.jsonl", "train": data / f"{task}_train.jsonl"}
    return {split: path for split, path in files.items() if path.is_file()}


@cache
def task_file(task: str) -> Path | None:
    """The YAML file that defines a task of lm-eval; None if there is none."""
    line = re.compile(rf"^task:\s*[\"']?{re.escape(task)}[\"']?\s*$", re.MULTILINE)
    return next((path for path in _candidates(task) if line.search(path.read_text(encoding="utf-8"))), None)


def _candidates(task: str) -> Iterator[Path]:
    """lm-eval's YAML files, those in folders that the task may be named after first."""
    import importlib.util

    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations is not None
    root = Path(next(iter(spec.submodule_search_locations))) / "tasks"
    near = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and task.startswith(folder.name)]
    for folder in [*near, root]:
        yield from sorted(folder.rglob("*.yaml"))


def _stock_config(task: str) -> dict[str, Any]:
    path = task_file(task)
    return _read_with_includes(path) if path is not None else {}


def _read_with_includes(path: Path) -> dict[str, Any]:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """Reads a task file as data: what it would import stays a string."""

    PlainLoader.add_constructor("!function", lambda loader, node: str(node.value))
    config: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=PlainLoader)
    includes = config.pop("include", [])
    merged: dict[str, Any] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        merged |= _read_with_includes(path.parent / include)
    return merged | config

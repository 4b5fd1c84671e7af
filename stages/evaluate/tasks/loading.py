"""Definitions -> lm-eval's own task and group objects, with their documents."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval.utils
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from llmrepair.models.failures import Failure
from llmrepair.pipeline.errors import LlmrepairError, Problem, WorkError
from llmrepair.stages.evaluate.tasks.asked import Identity, definitions
from llmrepair.stages.evaluate.tasks.definitions import Group, Task
from llmrepair.stages.evaluate.tasks.own_tasks import OWN_TASKS
from llmrepair.stages.evaluate.tasks.task_data import with_data
from llmrepair.stages.evaluate.tasks.web_questions import STOCK_TASK, shown_answer

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict

    from llmrepair.stages.evaluate.stage import EvaluateConfig


def load_tasks(config: EvaluateConfig, identities: Mapping[str, Identity]) -> TaskDict:
    """All that is asked.

    Raises:
        WorkError: a definition's code, or its documents, are not what they should be.
    """
    manager = TaskManager(include_defaults=False)

    def register(each: Task | Group) -> None:
        if isinstance(each, Group):
            for child in each.children:
                register(child)
            manager.task_index[each.name] = Entry(each.name, Kind.GROUP, None, each.config)
        else:
            data = with_data(each.config, each.name, config.tasks_data, identities[each.name])
            if each.name == STOCK_TASK:
                data |= {"fewshot_config": {"doc_to_target": shown_answer}}
            manager.task_index[each.name] = _entry(each.name, data)

    for name in config.tasks:
        if name in OWN_TASKS:
            manager.task_index[name] = _entry(name, OWN_TASKS[name].config(config.tasks_data))
    with told("the tasks cannot be loaded"):
        for each in definitions(config.tasks, config.include_path, _read):
            register(each)
        return manager.load(list(config.tasks))


def _read(path: Path) -> dict[str, Any]:
    with told(f"task file {path} cannot be loaded"):
        return load_yaml(path)


def _entry(name: str, config: dict[str, Any]) -> Entry:
    return Entry(name, Kind.PY_TASK if "class" in config else Kind.TASK, None, without_own_answers(config))


def without_own_answers(config: dict[str, Any]) -> dict[str, Any]:
    """A task's settings with which no item is an example for itself.

    Where a task names no split for examples, lm-eval takes them from one that it has, perhaps the one that is asked; but it
    leaves an item out of its own examples only where the settings name that same split twice.
    """
    asked = config.get("test_split") or config.get("validation_split")
    examples = config.get("fewshot_config") or {}
    shown = config.get("fewshot_split") or examples.get("split")
    shown = shown or config.get("training_split") or config.get("validation_split") or config.get("test_split")
    if shown != asked or "samples" in examples:
        return config
    return config | {"test_split": asked, "fewshot_split": asked}


def example_notes(tasks: Mapping[str, Any], num_fewshot: int | None) -> list[str]:
    """Says of which tasks the examples are items that are asked themselves."""
    names = [
        name
        for name, task in tasks.items()
        if task.config.fewshot_split is not None and task.config.fewshot_split == task.config.test_split
        if (task.config.num_fewshot if num_fewshot is None else num_fewshot)
    ]
    return [f"examples of `{name}` are other items of those that are asked: it has no more" for name in names]


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a template again for each document, a millisecond each time, several times per document."""
    compile_template = lm_eval.utils.env.from_string
    lm_eval.utils.env.from_string = cache(compile_template)
    try:
        yield
    finally:
        lm_eval.utils.env.from_string = compile_template


@contextmanager
def told(what: str) -> Iterator[None]:
    """Tasks are code of their authors over data of any shape; what fails there, and not in our models, is theirs to mend."""
    try:
        yield
    except LlmrepairError:
        raise
    except Failure as error:
        raise WorkError(Problem(str(error), error.hint)) from error
    except OverflowError as error:  # lm-eval takes the exponential of a loss
        message = f"{what}: a perplexity is too large for a number"
        hint = "the model knows nothing of such text: compress it less, or leave the task out"
        raise WorkError(Problem(message, hint)) from error
    except Exception as error:
        modules = (frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__))
        if any(module.startswith("llmrepair.models") for module in modules):
            raise
        message = f"{what}: {type(error).__name__}: {' '.join(str(error).split())}"
        raise WorkError(Problem(message, "mend the task's definition, its functions or its data, or leave it out")) from error

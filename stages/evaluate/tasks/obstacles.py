"""What keeps a task of lm-eval from running here, as far as its definition tells."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.evaluate.tasks.definitions import Task, lm_eval_tasks

_OUTPUT_TYPES = ("loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")
_FUNCTION = re.compile(r"""!function\s+["']?([\w.]+)\.\w+""")
_LM_EVAL_TASKS = "lm_eval.tasks."


def obstacles(tasks: Sequence[Task]) -> list[Problem]:
    """Why tasks cannot run, one problem for all that share a reason."""
    names: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        if (reason := _obstacle(task)) is not None:
            names.setdefault(reason, []).append(task.name)
    return [Problem(f"{listed(those)} cannot run: {why}", hint, "tasks") for (why, hint), those in names.items()]


def listed(names: Sequence[str], most: int = 5) -> str:
    """`a`, `b` and 3 more."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _obstacle(task: Task) -> tuple[str, str] | None:
    """A reason and a hint."""
    config = task.config
    output_type = config.get("output_type", "generate_until")
    if config.get("unsafe_code"):
        return "it runs code that the model writes", "there is no sandbox for that here; use lm-eval itself, in a container"
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        return "it asks about images or sounds", "give tasks about text with --tasks"
    if output_type not in _OUTPUT_TYPES:
        return f"`{output_type}` is no output type of lm-eval", f"give one of {', '.join(_OUTPUT_TYPES)}"
    if not any(config.get(name) for name in ("dataset_path", "custom_dataset", "class")):
        return "its definition names no data", "give it a `dataset_path`"
    missing = sorted({name for path in python_files(task) for name in _imports(path) if not _is_installed(name)})
    return (f"it needs what is not installed: {listed(missing)}", "install that with pip") if missing else None


def python_files(task: Task) -> list[Path]:
    """The modules beside a task's YAML files that hold its functions."""
    found = dict.fromkeys(
        path.parent / f"{module.replace('.', '/')}.py"
        for path in task.files
        for module in _FUNCTION.findall(path.read_text(encoding="utf-8"))
    )
    return [path for path in found if path.is_file()]


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _imports(path: Path) -> frozenset[str]:
    """Top-level packages that a module cannot do without, and those of the lm-eval task modules that it imports."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:  # is told when the module is imported
        return frozenset()
    packages: set[str] = set()
    for name in _imported_names(tree.body):
        local = lm_eval_tasks() / f"{name.removeprefix(_LM_EVAL_TASKS).replace('.', '/')}.py"
        if name.startswith(_LM_EVAL_TASKS) and local.is_file() and local != path:
            packages |= _imports(local)
        else:
            packages.add(name.partition(".")[0])
    return frozenset(packages)


def _imported_names(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """Modules imported when a module is; those under `try` only where failing to is not excused."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.Try) and all(
            any(isinstance(node, ast.Raise) for node in ast.walk(handler)) for handler in statement.handlers
        ):
            yield from _imported_names(statement.body)

"""Names of tasks, groups and tags -> what is to be asked, what is wrong with it, and what pins it."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.stages.evaluate.tasks.definitions import (
    DefinitionError,
    Definitions,
    Group,
    Read,
    Task,
    index_of,
    lm_eval_tasks,
    plain_yaml,
)
from llmrepair.stages.evaluate.tasks.obstacles import listed, obstacles, python_files
from llmrepair.stages.evaluate.tasks.own_tasks import GROUPS, OWN_TASKS
from llmrepair.stages.evaluate.tasks.task_data import data_identities, data_problems
from llmrepair.stages.evaluate.tasks.web_questions import STOCK_TASK, WEBQS_GENERATE, generating

Identity = dict[str, Any]


def expand(names: Sequence[str], include_path: Path | None) -> tuple[str, ...]:
    """What the user gave -> tasks and groups, each once, sorted. Patterns, tags and our own groups become their members.

    Args:
        names: tasks, groups, tags, patterns such as `blimp_*`.
        include_path: folder with further definitions.

    Raises:
        RequestError: names that nothing has.
    """
    if set(names) <= GROUPS.keys() | OWN_TASKS.keys():  # spares reading lm-eval's index
        return tuple(sorted({member for name in names for member in GROUPS.get(name, (name,))}))
    index = {**index_of(include_path), **GROUPS, **dict.fromkeys((*OWN_TASKS, WEBQS_GENERATE), Path())}
    matches = {name: [name] if name in index else fnmatch.filter(index, name) for name in names}
    if unknown := [name for name, found in matches.items() if not found]:
        raise RequestError(_unknown(unknown, index))
    expanded: set[str] = set()
    for name in {each for found in matches.values() for each in found}:
        members = index[name]
        expanded |= {name} if isinstance(members, Path) else set(members)
    return tuple(sorted(expanded))


def _unknown(names: Sequence[str], index: Mapping[str, Any]) -> Problem:
    near = [match for name in names for match in difflib.get_close_matches(name, index, n=3)]
    hint = f"did you mean {', '.join(f'`{name}`' for name in near)}? " if near else ""
    ours = ", ".join((*OWN_TASKS, WEBQS_GENERATE, *GROUPS))
    hint += f"give tasks, groups or tags of lm-eval or of --include-path, or ours: {ours}"
    return Problem(f"there is no task {' and no task '.join(f'`{name}`' for name in names)}", hint, "tasks")


def definitions(names: Sequence[str], include_path: Path | None, read: Read) -> list[Task | Group]:
    """Definitions of all that is asked and not ours.

    Args:
        names: what `expand` made of them.
        read: see `Definitions`.

    Raises:
        RequestError: definitions that are none.
    """
    if not (theirs := [name for name in names if name not in OWN_TASKS]):
        return []
    source, found, problems = Definitions(index_of(include_path), read), list[Task | Group](), []
    for name in theirs:
        try:
            found += map(generating, leaves(source.of(STOCK_TASK))) if name == WEBQS_GENERATE else source.of(name)
        except DefinitionError as error:
            problems.append(Problem(f"`{name}` cannot be read: {error}", "mend its definition, or leave it out", "tasks"))
    if problems:
        raise RequestError(*problems)
    return found


def task_identities(
    names: Sequence[str], include_path: Path | None, data: Path | None, digest: Callable[[Path], str]
) -> dict[str, Identity]:
    """Every task that is asked, those of groups too -> what pins its definition and its documents, for a key.

    Args:
        data: folder from which tasks read their documents instead of the Hub.

    Raises:
        RequestError: with all that keeps any of them from running, as far as can be told before.
    """
    own = {name: OWN_TASKS[name] for name in names if name in OWN_TASKS}
    problems = [problem for task in own.values() if (problem := task.problem(data))]
    asked = definitions(names, include_path, plain_yaml)
    tasks = list({task.name: task for task in leaves(asked)}.values())
    problems += [*_empty(asked), *_asked_twice(asked), *obstacles(tasks), *data_problems(tasks, data)]
    if problems:
        raise RequestError(*problems)
    found = data_identities(tasks, data, digest)
    theirs = {task.name: _definition(task, include_path, digest) | found[task.name] for task in tasks}
    ours = {name: {"data": {file: digest(path) for file, path in task.files(data).items()}} for name, task in own.items()}
    return ours | theirs


def leaves(asked: Sequence[Task | Group]) -> Iterator[Task]:
    """All tasks, those of groups too."""
    for each in asked:
        yield from each.tasks() if isinstance(each, Group) else (each,)


def _empty(asked: Sequence[Task | Group]) -> list[Problem]:
    names = [each.name for each in asked if isinstance(each, Group) and not any(each.tasks())]
    return [Problem(f"group `{name}` has no tasks", "list them in its file under `task:`", "tasks") for name in names]


def _asked_twice(asked: Sequence[Task | Group]) -> list[Problem]:
    counts = Counter(name for each in asked for name in {task.name for task in leaves([each])})
    if not (twice := [name for name, count in counts.items() if count > 1]):
        return []
    hint = "give a task by itself or as a part of one group"
    return [Problem(f"--tasks asks more than once for {listed(twice)}", hint, "tasks")]


def _definition(task: Task, include_path: Path | None, digest: Callable[[Path], str]) -> Identity:
    """Digests of a user's YAML files, and of the Python files beside their functions; what is lm-eval's own is pinned by its
    version, which is in every evaluation's key."""
    if include_path is None or all(path.is_relative_to(lm_eval_tasks()) for path in task.files):
        return {}
    modules = [module for path in python_files(task) for module in path.parent.glob("*.py")]
    files = {path for path in (*task.files, *modules) if not path.is_relative_to(lm_eval_tasks())}
    return {"definition": {_relative(path, include_path): digest(path) for path in sorted(files)}}


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()

"""lm-eval's tasks, groups and tags by name, and those of a user's folder.

lm-eval's own index parses 14,000 YAML files and imports torch for that. This one reads five keys of each file as text, in a
third of a second, and parses only what is asked for. A test compares the two over all names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_KEY = re.compile(rb"""^["']?(task|group|tag|include|class)["']?[ ]*:[ \t]*(.*(?:\n[ \t]*-[ ].*)*)""", re.MULTILINE)
_IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}
_GROUP_FIELDS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata"}

Index = Mapping[str, "Path | tuple[str, ...]"]
"""Name of a task or group -> the file that defines it; name of a tag -> its tasks."""
Keys = dict[bytes, bytes]
Read = Callable[[Path], dict[str, Any]]
"""A YAML file with what it includes -> its content."""


@dataclass(frozen=True)
class Task:
    """A task as a group or a user asks for it: the settings of its file, and over them those of its groups."""

    name: str
    config: dict[str, Any]
    files: tuple[Path, ...] = ()
    """The YAML files that it comes from; its groups' and what they include too."""


@dataclass(frozen=True)
class Group:
    name: str
    config: dict[str, Any]
    """What is the group's own: alias, metrics to aggregate, metadata."""
    children: list[Task | Group] = field(default_factory=list)

    def tasks(self) -> Iterator[Task]:
        """All tasks, those of subgroups too."""
        for child in self.children:
            yield from child.tasks() if isinstance(child, Group) else (child,)


class DefinitionError(Exception):
    """A definition that lm-eval could not use either; the message says why, in a few words."""


class Definitions:
    """Builds tasks and groups as lm-eval's factory does, without their data.

    Args:
        index: what there is.
        read: `plain_yaml`, or lm-eval's reader, which imports the functions that a file refers to.
    """

    def __init__(self, index: Index, read: Read):
        self._index, self._read = index, read

    def of(self, name: str) -> list[Task | Group]:
        """The task or group `name`; of a tag its tasks.

        Raises:
            DefinitionError: it is no definition.
        """
        try:
            return self._members(name, "", {}, ())
        except (yaml.YAMLError, OSError, RecursionError) as error:  # the last from a file that includes itself
            raise DefinitionError(" ".join(str(error).split())) from error

    def _build(self, name: str, path: Path, overrides: Mapping[str, Any], files: tuple[Path, ...]) -> Task | Group:
        config = self._read(path)
        files += tuple(files_of(path))
        if "group" in config and "class" not in config:
            return self._group(name, config, overrides, files)
        config |= overrides
        if not isinstance(config.get("task"), str):
            raise DefinitionError(f"a group gives task `{name}` another list of tasks")
        return Task(config["task"], config, files)

    def _group(self, name: str, config: dict[str, Any], overrides: Mapping[str, Any], files: tuple[Path, ...]) -> Group:
        overrides = {**{key: value for key, value in config.items() if key not in _GROUP_FIELDS}, **overrides}
        members = config.get("task")
        children = [
            child
            for member in (members if isinstance(members, list) else [])
            for child in self._members(member, name, overrides, files)
        ]
        own = {key: value for key, value in config.items() if key in _GROUP_FIELDS}
        return Group(name, own | {"group": name, "task": [child.name for child in children]}, children)

    def _members(
        self, member: str | dict[str, Any], group: str, overrides: Mapping[str, Any], files: tuple[Path, ...]
    ) -> list[Task | Group]:
        """What one entry of a group's list stands for: a name, a name with settings of its own, or a definition in place."""
        if isinstance(member, str):
            name = member
        elif "group" in member:
            name = member["group"]
            if name not in self._index:
                return [self._group(f"{group}::{name}", member, overrides, files)]
            overrides = {**overrides, **{key: value for key, value in member.items() if key != "group"}}
        elif isinstance(member.get("task"), str):
            name, overrides = member["task"], {**overrides, **member}
        else:
            raise DefinitionError(f"an entry of group `{group}` names neither a task nor a group")
        found = self._index.get(name)
        if found is None:
            name = f"{group}::{name}"
            return [Task(name, {**overrides, "task": name}, files)]
        if isinstance(found, Path):
            return [self._build(name, found, overrides, files)]
        paths = {each: path for each in sorted(found) if isinstance(path := self._index.get(each), Path)}
        return [self._build(each, path, overrides, files) for each, path in paths.items()]


def index_of(include_path: Path | None) -> Index:
    """All of lm-eval's names, and over them those of a user's folder."""
    return _stock_index() | (_index_below(include_path) if include_path is not None else {})


@cache
def lm_eval_tasks() -> Path:
    """The folder of lm-eval's task files, found without importing lm-eval."""
    import importlib.util

    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


@cache
def _stock_index() -> dict[str, Path | tuple[str, ...]]:
    return _index_below(lm_eval_tasks())


def _index_below(root: Path) -> dict[str, Path | tuple[str, ...]]:
    """Names below a folder. Of several definitions of a name the first counts, in the order of the paths, as in lm-eval."""
    index: dict[str, Any] = {}
    templates: dict[str, Keys] = {}
    for path in sorted(_yaml_files(str(root))):
        keys = _keys(path, templates)
        is_group = b"group" in keys and b"class" not in keys
        name = _scalar(keys.get(b"group" if is_group else b"task", b""))
        if not name or name in index:
            continue
        index[name] = Path(path)
        for tag in _names(keys.get(b"tag", b"")) if not is_group else ():
            if isinstance(tagged := index.setdefault(tag, ()), tuple):
                index[tag] = (*tagged, name)
    return index


def _yaml_files(root: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _IGNORED_FOLDERS]
        yield from (f"{folder}/{name}" for name in names if name.endswith(".yaml"))


def _keys(path: str, known: dict[str, Keys]) -> Keys:
    """The five keys of a YAML file as they are written there, or in what it includes; none if there is no such file.

    Args:
        known: those of files that were included before; extended.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a pathlib object takes longer than to read the file
            own = dict(_KEY.findall(file.read()))
    except OSError:
        return {}
    keys: Keys = {}
    for include in _names(own.pop(b"include", b"")):
        included = os.path.join(os.path.dirname(path), include)  # noqa: PTH118, PTH120  # as above
        if included not in known:
            known[included] = {}  # a file that includes itself ends here
            known[included] = _keys(included, known)
        keys |= known[included]
    return keys | own


def _scalar(text: bytes) -> str:
    names = _names(text)
    return names[0] if len(names) == 1 else ""


def _names(text: bytes) -> list[str]:
    """A scalar, or a list in either of its notations."""
    words = text.decode(errors="replace")
    if words.strip().isidentifier():
        return [words.strip()]
    try:
        value = yaml.load(words, Loader=_loader())
    except yaml.YAMLError:
        return []
    return [str(each) for each in (value if isinstance(value, list) else [value]) if each is not None]


@cache
def _loader() -> Any:
    class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads a task file as data: what it would import stays a string."""

    PlainLoader.add_constructor("!function", lambda loader, node: str(node.value))
    return PlainLoader


def plain_yaml(path: Path) -> dict[str, Any]:
    """A task file and what it includes, as data; what it would import stays a string."""
    config = _load(path)
    merged: dict[str, Any] = {}
    for include in _includes(config, path):
        merged |= plain_yaml(include)
    merged.pop("task_list", None)
    return merged | {name: value for name, value in config.items() if name != "include"}


def files_of(path: Path) -> Iterator[Path]:
    """A task file and all that it includes."""
    yield path
    for include in _includes(_load(path), path):
        yield from files_of(include)


def _load(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        config = yaml.load(file, Loader=_loader())
    if not isinstance(config, dict):
        raise DefinitionError(f"{path} holds no `name: value` lines")
    return config


def _includes(config: Mapping[str, Any], path: Path) -> list[Path]:
    includes = config.get("include", [])
    return [path.parent / include for include in (includes if isinstance(includes, list) else [includes])]

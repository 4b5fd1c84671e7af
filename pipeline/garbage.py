"""What could be removed from a store: artifacts that no named run leads to, and what interrupted stages left."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmrepair.pipeline.artifact import Artifact, files_below
from llmrepair.pipeline.store import NAMED, Store

_LONGEST_LINK = 120


@dataclass(frozen=True)
class Garbage:
    """Something that could go."""

    name: str
    what: str
    size_bytes: int
    age_seconds: float
    artifact: Artifact | None
    """None where it is not a finished artifact."""
    path: Path


def named_runs(store: Store) -> dict[str, list[str]]:
    """Name -> names of the artifacts that its links lead to."""
    folders = sorted((store.root / NAMED).glob("*"))
    return {folder.name: sorted({"/".join(link.readlink().parts[-2:]) for link in folder.glob("[!.]*")}) for folder in folders}


class NamedRun:
    """The folder `named/<name>` of links to artifacts, which `gc` keeps. It begins empty."""

    def __init__(self, store: Store, name: str):
        self.folder = store.root / NAMED / name
        self.folder.mkdir(parents=True, exist_ok=True)
        for link in self.folder.iterdir():
            link.unlink(missing_ok=True)

    def add(self, label: str, name: str) -> None:
        """Links to the artifact `stage/key` by a name that reads well."""
        stage, _, key = name.partition("/")
        words = re.sub(r"[^a-z0-9.]+", "-", f"{stage} {label}".lower()).strip("-")
        link = self.folder / f"{words[:_LONGEST_LINK]}-{key[:8]}"
        temporary = self.folder / f".{link.name}-{os.getpid()}"
        temporary.symlink_to(Path("..", "..", name))
        temporary.replace(link)  # another process that runs the same plan may have been quicker


def reachable(store: Store, names: Iterable[str]) -> set[str]:
    """Names of finished artifacts that can be read, among `names` and all that they were made from."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        artifact = store.find(name)
        if name not in found and artifact is not None and artifact.is_readable:
            found.add(name)
            waiting += artifact.inputs.values()
    return found


def made_from(store: Store, name: str) -> list[Artifact]:
    """The finished artifacts that `stage/key` went into, directly or not."""
    children: dict[str, list[Artifact]] = {}
    for artifact in store.artifacts():
        for upstream in artifact.inputs.values():
            children.setdefault(upstream, []).append(artifact)
    found: dict[str, Artifact] = {}
    waiting = [name]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child.name not in found:
                found[child.name] = child
                waiting.append(child.name)
    return list(found.values())


def garbage(store: Store, older_than_seconds: float = 0.0, down_to_bytes: int | None = None) -> list[Garbage]:
    """What could go, oldest first. Nothing that a named run leads to and that can be read, nor what is in use now.

    Args:
        older_than_seconds: leave what is younger.
        down_to_bytes: stop as soon as all that is kept is no more than this.
    """
    in_use = store.in_use()
    kept = reachable(store, {name for names in named_runs(store).values() for name in names} | in_use)
    artifacts = list(store.folders())
    found = [_of_artifact(artifact) for artifact in artifacts if artifact.name not in kept | in_use]
    found += _leftovers(store, in_use)
    found = sorted((each for each in found if each.age_seconds >= older_than_seconds), key=lambda each: -each.age_seconds)
    if down_to_bytes is None:
        return found
    excess = sum(_size(artifact.path) for artifact in artifacts) + sum(g.size_bytes for g in found if g.artifact is None)
    excess -= down_to_bytes
    chosen = []
    for each in found:
        if excess <= 0:
            break
        chosen.append(each)
        excess -= each.size_bytes
    return chosen


def free(store: Store, found: Iterable[Garbage]) -> None:
    for each in found:
        if each.artifact is not None:
            store.remove(each.artifact)
        else:
            shutil.rmtree(each.path, ignore_errors=True)


def _of_artifact(artifact: Artifact) -> Garbage:
    return Garbage(artifact.name, artifact.label, _size(artifact.path), _age(artifact.path), artifact, artifact.path)


def _leftovers(store: Store, in_use: set[str]) -> Iterator[Garbage]:
    for folder, what in ((".work", "left by an interrupted stage"), (".corrupt", "damaged")):
        for path in (store.root / folder).glob("*"):
            if "/".join(path.name.rsplit("-", 1)) not in in_use:
                yield Garbage(f"{folder}/{path.name}", what, _size(path), _age(path), None, path)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in files_below(folder))


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime

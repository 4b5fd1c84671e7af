"""Why two keys differ, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

Document = Mapping[str, Any]
"""What a key was computed from: the content of a key.json."""

_DIGEST = re.compile(r"[0-9a-f]{40,64}")


def differences(before: Document, after: Document, find: Callable[[str], Document | None]) -> list[str]:
    """What changed from one key document of a stage to another, a few words each; empty where they are equal.

    Args:
        find: the key document of an artifact `stage/key`, for inputs that differ; None if it is not known.
    """
    found = []
    if before["scheme"] != after["scheme"]:
        found.append(f"scheme of keys {before['scheme']} -> {after['scheme']}")
    changes = sorted(_changes(before["config"], after["config"]), key=lambda change: None in change)
    found += [f"`{name}` {_value(old)} -> {_value(new)}" for name, old, new in changes]
    found += [_source_change(path, old, new) for path, old, new in _leaf_changes(before["sources"], after["sources"])]
    versions = version_changes(before, after)
    found += versions
    found += _code_changes(before["code"], after["code"])
    for name, old, new in _changes(before["inputs"], after["inputs"]):
        told = _input_change(name, old, new, find)
        found += [text for text in told if text.rpartition(" (")[0] not in versions]  # all stages run with one torch
    return list(dict.fromkeys(found))


def version_changes(before: Document, after: Document) -> list[str]:
    """Libraries whose versions differ; none where one is of the time when keys held no versions."""
    if before["scheme"] != after["scheme"]:
        return []
    changes = _changes(before.get("libraries", {}), after.get("libraries", {}))
    return [f"`{library}` {_value(old)} -> {_value(new)}" for library, old, new in changes]


_MADE_WITH = {"machine": ("processor", "gpus", "threads"), "runtime": ("device", "batch_size")}
"""Parts of a record that can change the last digits of a number, for sums are taken in another order, and are in no key."""


def beside_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """With what artifacts of these records were made that is not in their keys, where that differs."""
    made = ({name: of[part].get(name) for part, names in _MADE_WITH.items() for name in names} for of in (before, after))
    return [f"`{name}` {_value(old)} -> {_value(new)}" for name, old, new in _changes(*made)]


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value; None for what is not there."""
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _leaf_changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name, old, new in _changes(before, after):
            yield from _leaf_changes(old, new, (*path, name))
    else:
        yield path, before, after


def _source_change(path: Sequence[str], old: Any, new: Any) -> str:
    *parents, name = path
    of = f" of {' '.join(parent for parent in parents if parent != 'files')}" if parents else ""
    if _is_digest(old) and _is_digest(new):
        return f"input `{name}`{of} changed"
    return f"input `{name}`{of}: {_value(old)} -> {_value(new)}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _code_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    words: dict[str, list[str]] = {}
    for module, old, new in _changes(before, after):
        verb = "was added" if old is None else "is gone" if new is None else "changed"
        words.setdefault(verb, []).append("`" + module.partition(".")[2].replace(".", "/") + "`")
    return [f"code of {', '.join(modules)} {verb}" for verb, modules in words.items()]


def _input_change(name: str, old: str | None, new: str | None, find: Callable[[str], Document | None]) -> list[str]:
    """An input's own differences, because its key alone says nothing."""
    before, after = (find(reference) if reference is not None else None for reference in (old, new))
    if before is None or after is None or before["stage"] != after["stage"]:
        return [f"input `{name}`: {_value(old)} -> {_value(new)}"]
    return [text if text.endswith(")") else f"{text} ({after['stage']})" for text in differences(before, after, find)]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(_value, value))
    text = value if isinstance(value, str) else repr(value)
    return f"{text[:12]}..." if _is_digest(text) else text


class Nearest:
    """Finds, among the finished artifacts of a stage, the one whose key document differs least from another.

    What a document's inputs were made from counts too. Documents are rows of numbers, a column per leaf, so that a thousand
    stages against ten thousand artifacts take no time.

    Args:
        find: the key document of an artifact `stage/key`; None if it is not known.
    """

    def __init__(self, documents: Sequence[Document], find: Callable[[str], Document | None]):
        import numpy as np

        self._find = cache(find)
        self._codes: dict[tuple[str, Any], int] = {}
        rows = [self._leaves(document) for document in documents]
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._table = np.array([self._row(row) for row in rows], dtype=np.int64)

    def to(self, document: Document) -> int | None:
        """Index of the nearest document; None if there is none. Of several the first."""
        if not len(self._table):
            return None
        differing = (self._table != self._row(self._leaves(document))).sum(axis=1)
        return int(differing.argmin())

    def _row(self, leaves: Mapping[str, Any]) -> list[int]:
        return [self._codes.setdefault((name, leaves.get(name)), len(self._codes)) for name in self._columns]

    def _leaves(self, document: Document) -> dict[str, Any]:
        """Settings and sources one by one; all of a stage's code is one leaf, for much of it changes with every edit, and so
        are the versions of its libraries."""
        stage = document["stage"]
        leaves = {
            f"{stage} {part} {name}": _hashable(value)
            for part in ("config", "sources")
            for name, value in document[part].items()
        }
        leaves[f"{stage} libraries"] = repr(document.get("libraries"))
        leaves[f"{stage} code"] = hash(tuple(document["code"].values()))
        for name in document["inputs"].values():
            upstream = self._find(name)
            leaves |= {f"{stage} input": name} if upstream is None else self._leaves(upstream)
        return leaves


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else repr(value)

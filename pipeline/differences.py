"""Why two keys differ, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
"""What a key was computed from: the content of a key.json."""

_DIGEST = re.compile(r"[0-9a-f]{40,64}")
_ABSENT = object()


def differences(before: Document, after: Document, find: Callable[[str], Document | None]) -> list[str]:
    """What changed from one key document to another, a few words each; empty where they are equal.

    Args:
        find: the key document of an artifact `stage/key`, for inputs that differ; None if it is not known.
    """
    found = []
    if before["stage"] != after["stage"]:
        return [f"another stage: {before['stage']} -> {after['stage']}"]
    if before["scheme"] != after["scheme"]:
        found.append(f"scheme of keys {before['scheme']} -> {after['scheme']}")
    found += [f"`{name}` {_value(old)} -> {_value(new)}" for name, old, new in _changes(before["config"], after["config"])]
    found += [_source_change(path, old, new) for path, old, new in _leaf_changes(before["sources"], after["sources"])]
    found += _code_changes(before["code"], after["code"])
    for name, old, new in _changes(before["inputs"], after["inputs"]):
        found += _input_change(name, old, new, find)
    return list(dict.fromkeys(found))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if old != new:
            yield name, old, new


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
        verb = "was added" if old is _ABSENT else "is gone" if new is _ABSENT else "changed"
        words.setdefault(verb, []).append("`" + module.partition(".")[2].replace(".", "/") + "`")
    return [f"code of {', '.join(modules)} {verb}" for verb, modules in words.items()]


def _input_change(name: str, old: Any, new: Any, find: Callable[[str], Document | None]) -> list[str]:
    """An input's own differences, because its key alone says nothing."""
    documents = [find(reference) if isinstance(reference, str) else None for reference in (old, new)]
    if documents[0] is None or documents[1] is None:
        return [f"input `{name}`: {_value(old)} -> {_value(new)}"]
    found = differences(documents[0], documents[1], find)
    return [text if text.endswith(")") else f"{text} ({documents[1]['stage']})" for text in found]


def _value(value: Any) -> str:
    if value is _ABSENT or value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_value, value))
    text = value if isinstance(value, str) else repr(value)
    return f"{text[:12]}..." if _is_digest(text) else text


class Nearest:
    """Finds, among the finished artifacts of a stage, the one whose key document differs least from another.

    Documents are rows of numbers, a column per leaf, so that a thousand stages against ten thousand artifacts take no time.
    """

    def __init__(self, documents: Sequence[Document]):
        import numpy as np

        self._codes: dict[tuple[str, str], int] = {}
        rows = [_leaves(document) for document in documents]
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._table = np.array([self._row(row) for row in rows], dtype=np.int64)

    def to(self, document: Document) -> int | None:
        """Index of the nearest document; None if there is none. Of several the first."""
        if not len(self._table):
            return None
        differing = (self._table != self._row(_leaves(document))).sum(axis=1)
        return int(differing.argmin())

    def _row(self, leaves: Mapping[str, Any]) -> list[int]:
        pairs = [(name, repr(leaves.get(name))) for name in self._columns]
        return [self._codes.setdefault(pair, len(self._codes)) for pair in pairs]


def _leaves(document: Document) -> dict[str, Any]:
    """Settings, sources and inputs one by one; all of the code is one leaf, for it changes with every edit."""
    parts = {"config": document["config"], "sources": document["sources"], "inputs": document["inputs"]}
    return dict(_flat(parts)) | {"code": sorted(document["code"].values())}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value

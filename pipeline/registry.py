"""Named things of one kind, ours in the order of a list, and behind them those that installed packages add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, TypeVar

from llmrepair.pipeline.errors import Problem, RequestError


class Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Name -> entry.

    Args:
        kind: what an entry is called, in a word.
        group: of the entry points by which packages add to it, such as `llmrepair.repairs`.
        ours: the entries that are always there.

    Raises:
        RequestError: a package's entry cannot be loaded, or has a name that is taken; looking up a name that no entry has.
    """

    def __init__(self, kind: str, group: str, ours: Iterable[Entry]):
        self._kind = kind
        self._entries: dict[str, Entry] = {entry.name: entry for entry in ours}
        for point in entry_points(group=group):
            self._add(point)

    def _add(self, point: EntryPoint) -> None:
        hint = f"uninstall the package that has the entry point `{point.name} = {point.value}`, or mend it"
        try:
            entry: Entry = point.load()
        except Exception as error:
            raise RequestError(Problem(f"{self._kind} `{point.name}` cannot be loaded: {error}", hint)) from error
        if entry.name in self._entries:
            raise RequestError(Problem(f"there are two of {self._kind} `{entry.name}`", hint))
        self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise RequestError(Problem(f"there is no {self._kind} `{name}`", f"give one of {', '.join(self._entries)}"))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

"""Versions of the libraries that results depend on: part of every key, because another version may give other numbers."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from llmrepair.pipeline.keys import KEY_SCHEME

Versions = Mapping[str, str | None]
"""Library -> its version; None where it is not installed."""

_BUILD = re.compile(r"\+(cpu|cu\d+|rocm[\d.]*|xpu)")
"""For which device a library was built. The device does not count, so neither does this."""


@cache
def version_of(library: str) -> str | None:
    try:
        return _BUILD.sub("", importlib.metadata.version(library))
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_of(libraries: Iterable[str]) -> dict[str, str | None]:
    return {library: version_of(library) for library in sorted(set(libraries))}


def are_current(document: Mapping[str, Any]) -> bool:
    """Whether what a key document was made with is what is installed."""
    versions: Versions = document.get("libraries", {})
    return document.get("scheme", KEY_SCHEME) == KEY_SCHEME and versions == versions_of(versions)

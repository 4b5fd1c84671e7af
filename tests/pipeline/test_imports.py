"""Python looks for garbage neither while modules are imported nor in them later, but takes away what was garbage before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from llmrepair.pipeline.imports import no_garbage_collection


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    gc.unfreeze()


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_an_import_leaves_is_never_looked_through_again() -> None:
    with no_garbage_collection():
        assert not gc.isenabled()
        imported = _Cycle()
    assert gc.isenabled()
    assert not any(each is imported for each in gc.get_objects())  # which lists all that a collection looks at


def test_garbage_from_before_is_not_kept() -> None:
    cycle = weakref.ref(_Cycle())
    assert cycle() is not None
    with no_garbage_collection():
        assert cycle() is None

"""What a GGUF file says in front of its weights. Other readers of it take seconds, and trust the counts in a broken file."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a field -> format of one value."""
_STRING, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"


class BrokenFileError(ValueError):
    """Says in a few words what is wrong with a file."""


@dataclass(frozen=True)
class Header:
    """Fields by name, and of each tensor its type's number and its shape, the columns last."""

    fields: Mapping[str, Any]
    types: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        return str(self.fields.get("general.architecture"))

    @property
    def weights(self) -> int:
        return sum(map(prod, self.shapes.values()))


def read_header(path: Path) -> Header:
    """
    Raises:
        BrokenFileError: the file is none of GGUF, or ends before what it says is in it.
    """
    if path.stat().st_size < len(_MAGIC):
        raise BrokenFileError("it is no GGUF file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _Reader(content).header()
        except (struct.error, UnicodeDecodeError) as error:
            raise BrokenFileError("it ends, or is damaged, before its weights begin") from error


class _Reader:
    """Reads value after value."""

    def __init__(self, content: mmap.mmap):
        self._content = content
        self._place = 0

    def header(self) -> Header:
        if self._bytes(len(_MAGIC)) != _MAGIC:
            raise BrokenFileError("it is no GGUF file")
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            raise BrokenFileError(f"it has version {version} of GGUF, and {' and '.join(map(str, _VERSIONS))} can be read")
        tensors, fields = self._numbers("QQ")
        found = {self._string(): self._value(*self._numbers("I")) for _ in self._counted(fields)}
        types, shapes, offsets = {}, {}, {}
        for _ in self._counted(tensors):
            name, (dimensions,) = self._string(), self._numbers("I")
            shapes[name] = tuple(reversed(self._numbers(f"{dimensions}Q")))
            types[name], offsets[name] = self._numbers("IQ")
        header = Header(found, types, shapes)
        self._check_weights(header, offsets)
        return header

    def _check_weights(self, header: Header, offsets: Mapping[str, int]) -> None:
        from gguf import GGML_QUANT_SIZES

        known = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
        alignment = int(header.fields.get(_ALIGNMENT, 32))
        start = -(-self._place // alignment) * alignment
        for name, offset in offsets.items():
            if (sizes := known.get(header.types[name])) is None:
                raise BrokenFileError(f"its tensor `{name}` has the unknown type {header.types[name]}")
            weights, size = sizes
            if start + offset + prod(header.shapes[name]) // weights * size > len(self._content):
                raise BrokenFileError(f"it is cut off: its tensor `{name}` is not all there")

    def _bytes(self, count: int) -> bytes:
        self._counted(count)
        self._place += count
        return self._content[self._place - count : self._place]

    def _numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._content, self._place)
        self._place += struct.calcsize(f"<{form}")
        return values

    def _counted(self, count: int) -> range:
        """So many things, each of which takes a byte or more: a wrong count would take all memory."""
        if count > len(self._content) - self._place:
            raise struct.error
        return range(count)

    def _string(self) -> str:
        return self._bytes(*self._numbers("Q")).decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            of, count = self._numbers("IQ")
            self._counted(count)
            return list(self._numbers(f"{count}{_NUMBERS[of]}")) if of in _NUMBERS else [self._value(of) for _ in range(count)]
        if kind not in _NUMBERS:
            raise struct.error
        (value,) = self._numbers(_NUMBERS[kind])
        return value

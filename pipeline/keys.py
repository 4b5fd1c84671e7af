"""What an artifact's key is computed from: canonical JSON and file digests (`code.py` has those of code).

A key is the sha256 of a document that holds everything the result depends on. Two rules keep it honest: equal documents
have equal bytes whatever machine, process or dict order made them, and unequal documents never share bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

KEY_SCHEME = 3
KEY_LENGTH = 16  # hex digits that name a folder: 64 bits, no collision before billions of artifacts

_BLOCK_BYTES = 32 << 20
"""What is read of a file at once: between two blocks another thread may keep Python's lock for as long as it likes to."""
_READERS = 4
_LONG_BYTES = 1 << 29
"""Files that are read for half a second or longer."""

FINDINGS = "findings.json"
"""Beside the digests: what was found in contents."""
_SAMPLES = 9
_SAMPLE_BYTES = 1 << 16


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Raises:
        TypeError: for what JSON would silently change: keys that are no strings, and types it does not know.
        ValueError: for NaN and infinity.
    """
    _check_canonical(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check_canonical(value: Any) -> None:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"only strings can be keys of a document: {list(value)}")
        for item in value.values():
            _check_canonical(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_canonical(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no place in a document")
    elif value is not None and not isinstance(value, (str, int, float, bool)):
        raise TypeError(f"{type(value).__name__} has no place in a document")


def document_key(document: dict[str, Any]) -> str:
    """The first `KEY_LENGTH` hex digits of the sha256 over the document's canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()[:KEY_LENGTH]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        block = memoryview(bytearray(min(_BLOCK_BYTES, path.stat().st_size + 1)))
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


class DigestCache:
    """File digests remembered by path, so that a 14 GB model is read once.

    What is remembered counts only while size, times and inode are the same, and a sample of the content. Times alone would
    not do: archives, images and `cp -p` set the modification time, and a disk that was put back sets all of them.

    A file written within `_RACY_NANOSECONDS` of being digested is digested again next time: a later write could leave its
    size and time stamps unchanged.
    """

    _RACY_NANOSECONDS = 2_000_000_000

    def __init__(self, path: Path):
        self._path = path
        self._known = {name: entry for name, entry in _read_object(path).items() if isinstance(entry, list) and entry}
        self._findings = {name: each for name, each in _read_object(path.with_name(FINDINGS)).items() if isinstance(each, dict)}
        self.while_reading: Callable[[], None] = lambda: None
        """Called while files are read for long; whoever has something else to do may set it."""

    def digest(self, path: Path) -> str:
        return self.digests([path])[0]

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """Of several files; large ones are read side by side."""
        paths = [path.resolve() for path in paths]
        stamps = {path: _stamp(path, path.stat()) for path in paths}
        unknown = [path for path in stamps if self._known.get(str(path), [])[:-1] != stamps[path]]
        found = {path: str(self._known[str(path)][-1]) for path in stamps if path not in unknown}
        if unknown:
            found |= dict(zip(unknown, self._read(unknown), strict=True))
            self._remember({path: [*stamps[path], found[path]] for path in unknown})
        return [found[path] for path in paths]

    def _read(self, paths: Sequence[Path]) -> list[str]:
        if sum(path.stat().st_size for path in paths) < _LONG_BYTES:
            return [file_digest(path) for path in paths]
        with ThreadPoolExecutor(_READERS) as readers:
            digests = readers.map(file_digest, paths)
            self.while_reading()
            return list(digests)

    def _remember(self, entries: dict[Path, list[Any]]) -> None:
        latest = time.time_ns() - self._RACY_NANOSECONDS
        old = {str(path): entry for path, entry in entries.items() if max(entry[_MODIFIED], entry[_CHANGED]) < latest}
        if old:
            self._known |= old
            _save(self._path, self._known)

    def found(self, path: Path, what: str, look: Callable[[Path], str | None]) -> str | None:
        """What `look` finds in a file. It is remembered by the content, which is looked at once.

        Args:
            what: is looked for.
        """
        digest = self.digest(path)
        known = self._findings.setdefault(what, {})
        if digest not in known:
            known[digest] = look(path)
            _save(self._path.with_name(FINDINGS), self._findings)
        finding: str | None = known[digest]
        return finding

    def files(self) -> list[Path]:
        """All whose digests are remembered and that are still there."""
        return [path for path in map(Path, sorted(self._known)) if path.is_file()]

    def verify(self, path: Path) -> str | None:
        """Reads one of `files()` as a whole, and forgets what is remembered of it where that is wrong.

        Returns:
            The wrong digest that would have been taken for the file's; None if there is none.
        """
        *stamp, digest = self._known[str(path)]
        if stamp != _stamp(path, path.stat()) or file_digest(path) == digest:
            return None
        del self._known[str(path)]
        _save(self._path, self._known)
        return str(digest)


_MODIFIED, _CHANGED = 1, 2
"""Places of two times in a stamp."""


def _stamp(path: Path, status: os.stat_result) -> list[Any]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, _sample_digest(path, status.st_size)]


def _sample_digest(path: Path, size: int) -> str:
    """sha256 of `_SAMPLES` blocks from the first to the last, evenly apart; of a small file these are all of it."""
    sample = hashlib.sha256()
    with path.open("rb") as file:
        for index in range(_SAMPLES):
            file.seek(max(size - _SAMPLE_BYTES, 0) * index // (_SAMPLES - 1))
            sample.update(file.read(_SAMPLE_BYTES))
    return sample.hexdigest()


def _save(path: Path, value: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a cache: without it the next command is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(value))
        temporary.replace(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):  # a cache: one that cannot be read is only slower
        return {}
    return value if isinstance(value, dict) else {}

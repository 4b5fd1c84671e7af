"""What an artifact's key is computed from: canonical JSON, file digests, code digests.

A key is the sha256 of a document that holds everything the result depends on. Two rules keep it honest: equal documents
have equal bytes whatever machine, process or dict order made them, and unequal documents never share bytes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

KEY_SCHEME = 1
KEY_LENGTH = 16  # hex digits that name a folder: 64 bits, no collision before billions of artifacts

_CHUNK_BYTES = 1 << 20


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestCache:
    """File digests remembered by path, size, modification time and inode, so that a 14 GB model is read once.

    A file written within `_RACY_SECONDS` of being digested is digested again next time: a later write could leave its
    size and time stamp unchanged.
    """

    _RACY_NANOSECONDS = 2_000_000_000

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[str, list[Any]] = _read_json_or(path, {})

    def digest(self, path: Path) -> str:
        path = path.resolve()
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._known.get(str(path))
        if known and known[:3] == stamp:
            return str(known[3])
        digest = file_digest(path)
        if _now_ns() - status.st_mtime_ns > self._RACY_NANOSECONDS:
            self._known[str(path)] = [*stamp, digest]
            self._save()
        return digest

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(self._known))
        temporary.replace(self._path)


def _now_ns() -> int:
    import time

    return time.time_ns()


def _read_json_or(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # a cache: a damaged one is only slower
        return default


def code_digests(entry: str, within: tuple[str, ...]) -> dict[str, str]:
    """Digest of every module that `entry` imports, directly or not, among the packages `within`.

    Imports are read from the source, those inside functions too, so nothing is imported and nothing can be forgotten;
    those for type checkers alone do not count.

    Args:
        entry: dotted name of the module that computes a stage.
        within: packages whose modules count (prefixes of dotted names); the others are followed by version in the record.

    Returns:
        dotted module name -> sha256 of its syntax tree without comments and docstrings.
    """
    digests: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        if module in digests or not module.startswith(within):
            continue
        path = _module_path(module)
        if path is None:  # `from package import name` where the name is no module
            continue
        digests[module], imported = _digest_and_imports(module, path)
        waiting += imported
    return digests


@cache
def _module_path(module: str) -> Path | None:
    """The file of a module. Looked up on disk below the second level: `find_spec` would import its parents."""
    parent, _, name = module.rpartition(".")
    if "." not in parent:
        spec = importlib.util.find_spec(module)
        return Path(spec.origin) if spec is not None and spec.origin else None
    package = _module_path(parent)
    if package is None or package.name != "__init__.py":
        return None
    candidates = (package.parent / name / "__init__.py", package.parent / f"{name}.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _digest_and_imports(module: str, path: Path) -> tuple[str, list[str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = [name for node in _run_nodes(tree) for name in _imported_names(node, module)]
    return hashlib.sha256(syntax_digest_text(tree).encode()).hexdigest(), imported


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from _run_nodes(child)


def _imported_names(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise ValueError(f"{module} has a relative import; code digests follow absolute ones only")
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def syntax_digest_text(node: ast.AST) -> str:
    """A syntax tree as text, without positions, comments and docstrings.

    Not `ast.dump`: that also writes empty fields, and which fields exist differs between versions of Python.
    """
    values = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        values["body"] = _without_docstring(node.body)
    fields = [f"{name}={_field_text(value)}" for name, value in values.items() if value is not None and value != []]
    return f"{type(node).__name__}({','.join(fields)})"


def _field_text(value: Any) -> str:
    if isinstance(value, ast.AST):
        return syntax_digest_text(value)
    if isinstance(value, list):
        return f"[{','.join(map(_field_text, value))}]"
    return repr(value)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] if is_docstring else body

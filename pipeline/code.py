"""Digests of the code that computes a stage, so that an edit makes a new key and a comment does not."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any


@cache
def code_digests(entries: tuple[str, ...]) -> dict[str, str]:
    """Digest of every module that `entries` import, directly or not, as it was when this process first asked.

    Imports are read from the source, those inside functions too, so nothing is imported and nothing can be forgotten;
    those for type checkers alone do not count. Neither do libraries, which the record follows by version, nor this package,
    which keeps results and does not compute them.

    Args:
        entries: dotted names of the modules that compute a stage. What lies in their top-level packages counts.

    Returns:
        dotted module name -> sha256 of its syntax tree without comments and docstrings.
    """
    counted = {entry.partition(".")[0] for entry in entries}
    digests: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in digests or module.partition(".")[0] not in counted or f"{module}.".startswith(f"{__package__}."):
            continue
        path = _module_path(module)
        if path is None:  # `from package import name` where the name is no module
            continue
        digests[module], imported = _digest_and_imports(module, path)
        waiting += imported
    return digests


def is_current(code: Mapping[str, str]) -> bool:
    """Whether modules with these digests are as they were: then they import what they did, and nothing else counts."""
    return all((path := _module_path(module)) and _digest_and_imports(module, path)[0] == code[module] for module in code)


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
    """All statements of a tree but those under `if TYPE_CHECKING:`, which never run. Most nodes stand in expressions, and no
    import does."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
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
    fields = []
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            value = _without_docstring(node.body)
        if value is not None and value != []:
            fields.append(f"{name}={_field_text(value)}")
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

"""The house as its source says it is: modules, rooms, and what points where."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"llmrepair": "api"} | {f"llmrepair.{name}": name for name in ("cli", "lab", "models", "pipeline", "stages")}
"""Package -> its folder at the top of the repository."""

Arrows = Mapping[str, Set[str]]
"""From what to what."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of all that is installed."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def arrows() -> dict[str, set[str]]:
    """Module -> the modules that it imports, at any time, or names in a string that is imported later."""
    return {module: set(_used(module, path)) for module, path in modules().items()}


def _used(module: str, path: Path) -> Iterator[str]:
    for node in _run_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else str(node.module) for name in names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Entry":
            names = [f"llmrepair.cli.{argument.value}" for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        yield from (name for name in names if "." in name and name in modules() and name != module)


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from _run_nodes(child)


def room(module: str) -> str:
    """The folder of a module, seen from the top; of `stages` the folders on its first level."""
    path = modules()[module].relative_to(ROOT)
    return "/".join(path.parts[:2]) if path.parts[0] == "stages" and len(path.parts) > 2 else path.parts[0]


def rooms() -> dict[str, set[str]]:
    """Room -> those that it imports from."""
    found: dict[str, set[str]] = {room(module): set() for module in modules()}
    for module, used in arrows().items():
        found[room(module)] |= {room(other) for other in used} - {room(module)}
    return found


def floors(graph: Arrows) -> dict[str, int]:
    """How high each stands: 1 on what imports nothing, else one above the highest that it imports.

    Raises:
        ValueError: with a circle.
    """
    heights: dict[str, int] = {}

    def height(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(" -> ".join((*above[above.index(name) :], name)))
        if name not in heights:
            heights[name] = 1 + max((height(other, (*above, name)) for other in graph[name]), default=0)
        return heights[name]

    for name in graph:
        height(name, ())
    return heights

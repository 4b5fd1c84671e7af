"""On which line of a TOML file something stands; the standard library's parser does not say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value: `("grid", "compressions", 1, "bits")`."""


def line_of(text: str, place: Place) -> int:
    """The line, from 1, of what stands at `place`, or of the nearest thing around it."""
    import tree_sitter_toml
    from tree_sitter import Language, Parser

    lines: dict[Place, int] = {(): 1}
    root = Parser(Language(tree_sitter_toml.language())).parse(text.encode()).root_node
    tables: Counter[Place] = Counter()
    for node in root.children:
        place_of_table: Place = ()
        if node.type in ("table", "table_array_element"):
            place_of_table = _key(node.children[1])
            if node.type == "table_array_element":
                tables[place_of_table] += 1
                place_of_table = (*place_of_table, tables[place_of_table] - 1)
            lines[place_of_table] = _line(node)
        for pair in [node] if node.type == "pair" else node.children:
            _add(pair, place_of_table, lines)
    return next(lines[place[:length]] for length in range(len(place), -1, -1) if place[:length] in lines)


def _add(node: Node, place: Place, lines: dict[Place, int]) -> None:
    if node.type == "pair":
        key, value = node.children[0], node.children[2]
        place = (*place, *_key(key))
        lines[place] = _line(node)
        _add(value, place, lines)
    elif node.type == "array":
        values = [child for child in node.children if child.type not in ("[", "]", ",", "comment")]
        for index, value in enumerate(values):
            lines[*place, index] = _line(value)
            _add(value, (*place, index), lines)
    elif node.type == "inline_table":
        for pair in node.children:
            _add(pair, place, lines)


def _key(node: Node) -> Place:
    if node.type == "dotted_key":
        return tuple(part for child in node.children if child.type != "." for part in _key(child))
    assert node.text is not None
    return (node.text.decode().strip("\"'"),)


def _line(node: Node) -> int:
    return node.start_point.row + 1

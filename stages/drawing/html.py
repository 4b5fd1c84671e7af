"""What sections are made of: tables that sort, boxes that scroll, bars of shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from llmrepair.stages.drawing.numbers import repair_text


def table(caption: str, words: Sequence[str], numbers: Sequence[str], rows: Iterable[str]) -> str:
    """A table that sorts by a click on a head. Heads of columns with words and of those with numbers, and rows are HTML."""
    heads = [*((head, "") for head in words), *((head, " class=number") for head in numbers)]
    head = "".join(f"<th scope=col{kind}><button type=button>{each}</button></th>" for each, kind in heads)
    content = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return box(content, caption)


def box(content: object, label: str) -> str:
    """What is too wide scrolls in here, by keys too."""
    return f'<div class=scroll tabindex=0 role=region aria-label="{escape(label)}">{content}</div>'


def folded(title: str, content: str, is_open: bool = False) -> str:
    """What a click on its title shows, and a print too."""
    return f"<details class=print{' open' * is_open}><summary>{escape(title)}</summary>{content}</details>"


def grid(drawings: Iterable[object], kind: str = "grid") -> str:
    """Drawings side by side, as many as there is room for."""
    figures = "".join(f"<figure>{each}</figure>" for each in drawings)
    return f'<div class="{kind}">{figures}</div>'


def cell(words: str, number: float | None = None) -> str:
    """A number in words, sorted by its value."""
    return f'<td class=number data-value="{"" if number is None else number}">{words}</td>'


def share_cell(share: Mapping[str, float] | None) -> str:
    """`44.0 % [32.0, 56.0]`; empty where it is not known."""
    if share is None:
        return cell("")
    value, low, high = (100 * share[name] for name in ("value", "low", "high"))
    return cell(f"{value:.1f} % <small>[{low:.1f}, {high:.1f}]</small>", share["value"])


def head(row: Mapping[str, Any]) -> str:
    return f"<th scope=row>{escape(row['compression'])}</th><td>{escape(repair_text(row))}</td>"


def bar(shares: Sequence[tuple[str, str, float, str]]) -> str:
    """Name, class of the colour, share and what else is said of it -> a bar of parts, and the same in words."""
    parts = "".join(
        f'<i class="{kind}" style="flex:{share:.4f}" title="{escape(f"{name} {share:.1%}")}"></i>'
        for name, kind, share, _ in shares
    )
    words = "".join(
        f'<li><i class="{kind}"></i>{escape(name)} {share:.0%}{f" <small>{escape(more)}</small>" if more else ""}</li>'
        for name, kind, share, more in shares
    )
    return f"<div class=bar aria-hidden=true>{parts}</div><ul class=parts>{words}</ul>"


def link(name: str, store: str, words: str = "") -> str:
    """To an artifact."""
    return f'<a href="{quote(store)}/{name}/">{escape(words or name)}</a>'

"""The results table as a paper lays it out, in Markdown and LaTeX: rows are repairs, grouped by compression, columns tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from llmrepair.stages.drawing.numbers import count_text, footnotes, repair_text, score_text, significant

_LATEX = {
    "*": "$^{*}$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "·": r"\textperiodcentered{}",
    "≤": r"$\leq$",
    "↓": r"$\downarrow$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "[": "{[}",  # which behind a line break begins an option
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def markdown(document: Mapping[str, Any]) -> str:
    """A table of GitHub's kind."""
    scores = [f"{_markdown_text(title)}<br>{_markdown_text(metric)}" for title, metric in _heads(document)]
    heads = ["compression", "repair", *scores, "extra parameters"]
    sides = [":--", ":--", *["--:"] * (len(heads) - 2)]
    body = [[*map(_markdown_text, cells[:2]), *cells[2:]] for cells in _rows(document, mark="\\*")]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, sides, *body)]
    notes = "\n\n".join(map(_markdown_text, footnotes(document)))
    return f"## {_markdown_text(document['title'])}\n\n" + "\n".join(lines) + f"\n\n{notes}\n"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_<|])", r"\\\1", " ".join(text.split()))


def latex(document: Mapping[str, Any]) -> str:
    """A `table` for the package booktabs, with a rule between compressions."""
    heads = [f"\\shortstack{{{latex_text(title)}\\\\{latex_text(metric)}}}" for title, metric in _heads(document)]
    lines = [f"Compression & Repair & {' & '.join(heads)} & \\shortstack{{Extra\\\\parameters}} \\\\"]
    for compression, rows in groupby(_rows(document, mark=_LATEX["*"]), key=lambda cells: cells[0]):
        lines.append("\\midrule")
        for place, (_, repair, *numbers) in enumerate(rows):
            cells = [latex_text(compression) if place == 0 else "", latex_text(repair), *numbers]
            lines.append(f"{' & '.join(cells)} \\\\")
    return _LATEX_FRAME.format(
        caption=latex_text(document["title"]),
        sides="ll" + "r" * (len(heads) + 1),
        lines="\n".join(lines),
        notes=latex_text(". ".join(footnotes(document))),
    )


_LATEX_FRAME = r"""% \usepackage{{booktabs}}
\begin{{table}}
\centering
\caption{{{caption}}}
\footnotesize
\begin{{tabular}}{{{sides}}}
\toprule
{lines}
\bottomrule
\end{{tabular}}

\smallskip
\parbox{{\linewidth}}{{{notes}.}}
\end{{table}}
"""


def latex_text(text: str) -> str:
    """Text in which no character has a meaning of its own."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _heads(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Title and metric of each column; an arrow where lower is better."""
    return [
        (column["title"], column["metric"] + ("" if column["higher_is_better"] else " ↓")) for column in document["columns"]
    ]


def _rows(document: Mapping[str, Any], mark: str) -> Iterator[list[str]]:
    """Cells: compression, repair, its scores, marked where they differ from those without a repair, extra parameters."""
    marked = significant(document)
    for row in document["rows"]:
        scores = [
            score_text(row["scores"].get(column["name"]), column) + mark * ((row["name"], column["name"]) in marked)
            for column in document["columns"]
        ]
        yield [row["compression"], repair_text(row), *scores, count_text(row["extra_parameters"])]

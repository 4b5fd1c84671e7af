"""The report as one HTML file that needs nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from llmrepair.stages.drawing.numbers import CHANGES_NOTE, footnotes
from llmrepair.stages.drawing.svg import STYLE, page_colours
from llmrepair.stages.report.files import TEMPLATE
from llmrepair.stages.report.page.choices import selection
from llmrepair.stages.report.page.repairs import cases, comparisons
from llmrepair.stages.report.page.scores import repairs_legend, score_plots, scores
from llmrepair.stages.report.page.settings import settings, versions
from llmrepair.stages.report.page.verdicts import verdicts

if TYPE_CHECKING:
    from llmrepair.stages.diagnostics.base import Diagnostic


def render_html(document: Mapping[str, Any], store: str, diagnostics: Iterable[Diagnostic]) -> str:
    """
    Args:
        document: what report.json holds.
        store: the folder of artifacts as seen from the file, for links.
        diagnostics: whose sections the page has, where the document holds any of theirs.
    """
    found = {each: document[each.field] for each in diagnostics if document.get(each.field)}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(document["title"]),
        colours=page_colours(),
        marks=STYLE,
        verdicts=verdicts(document, store),
        findings="".join(f"<li>{escape(sentence)}</li>" for sentence in document["findings"]),
        scores=scores(document),
        notes="".join(f"<li>{escape(note)}</li>" for note in footnotes(document)),
        figures=score_plots(document),
        legend=repairs_legend(document),
        cases=cases(document),
        diagnostics="".join(each.section(those, document["kinds"], store) for each, those in found.items()),
        changes=escape(CHANGES_NOTE),
        comparisons=comparisons(document),
        selection=selection(document),
        settings=settings(document, store),
        versions=versions(document),
    )

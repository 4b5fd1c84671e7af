"""The report as one HTML file that needs nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from string import Template
from typing import Any

from llmrepair.stages.report.files import TEMPLATE
from llmrepair.stages.report.page.inside import probes, regimes
from llmrepair.stages.report.page.repairs import cases, comparisons, selection
from llmrepair.stages.report.page.scores import repairs_legend, score_plots, scores
from llmrepair.stages.report.page.settings import settings, versions
from llmrepair.stages.report.page.verdicts import verdicts
from llmrepair.stages.report.text import footnotes
from llmrepair.stages.svg import STYLE, page_colours


def render_html(document: Mapping[str, Any], store: str) -> str:
    """
    Args:
        document: what report.json holds.
        store: the folder of artifacts as seen from the file, for links.
    """
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
        probes=probes(document, store),
        regimes=regimes(document, store),
        comparisons=comparisons(document),
        selection=selection(document),
        settings=settings(document, store),
        versions=versions(document),
    )

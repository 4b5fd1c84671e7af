"""The report's tables, from a document written by hand."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.stages.report.figure import flow, linear, ticks
from llmrepair.stages.report.html import render_html
from llmrepair.stages.report.long_form import COLUMNS, csv_text
from llmrepair.stages.report.paper import latex, latex_text, markdown
from llmrepair.stages.report.table import add_holm
from llmrepair.stages.report.text import MARK_NOTE, significant
from tests.stages.report_document import ODD, document


def test_p_values_are_adjusted_for_the_tasks_of_a_row_and_not_for_other_rows() -> None:
    compared = [{"row": row, "column": column, "p_mcnemar": p} for row, column, p in ROWS]
    add_holm(compared)
    found = [(each["p_holm"], each["is_significant"]) for each in compared]
    assert found == [(pytest.approx(0.03), True), (0.03, True), (pytest.approx(0.08), False), (pytest.approx(0.08), False)]


ROWS = [("lora", "a", 0.01), ("idp", "a", 0.03), ("lora", "b", 0.04), ("lora", "c", 0.045)]


def test_only_repairs_are_marked() -> None:
    found = document()
    assert significant(found) == {("lora", "qa")}  # the compressed model differs too, but from the dense one
    found["comparisons"][2]["is_significant"] = False
    assert significant(found) == set()


def test_markdown() -> None:
    odd = 'a\\_b\\|c\\<i>&"x", 50% $1 #2 {3} \\\\4'
    lines = markdown(document()).splitlines()
    assert lines[:8] == [
        f"## {odd}: compressed and repaired",
        "",
        f"| compression | repair | {odd}<br>exact\\_match | text<br>word\\_perplexity ↓ | extra parameters |",
        "| :-- | :-- | --: | --: | --: |",
        "| dense | none | 90.0 [80.0, 95.0] | 12.500 | 0 |",
        "| gptq 3 bits | none | 74.0 [70.0, 80.0] | 110.0 [100.0, 120.0] | 0 |",
        "| gptq 3 bits | IDP (2 seeds) | 71.0 [60.0, 80.0] |  | 1,024 |",
        "| gptq 3 bits | LoRA | 90.0 [85.0, 95.0]\\* | 20.000 | 1,024 |",
    ]
    assert lines[-1] == "\\" + MARK_NOTE


def test_latex() -> None:
    table = latex(document())
    body = table.partition("\\toprule\n")[2].partition("\n\\bottomrule")[0].splitlines()
    assert body[1:] == [
        "\\midrule",
        "dense & none & 90.0 [80.0, 95.0] & 12.500 & 0 \\\\",
        "\\midrule",
        "gptq 3 bits & none & 74.0 [70.0, 80.0] & 110.0 [100.0, 120.0] & 0 \\\\",
        " & IDP (2 seeds) & 71.0 [60.0, 80.0] &  & 1,024 \\\\",
        " & LoRA & 90.0 [85.0, 95.0]$^{*}$ & 20.000 & 1,024 \\\\",
    ]
    assert "\\begin{tabular}{llrrr}" in table


@given(st.text())
def test_latex_text_means_nothing_to_latex(text: str) -> None:
    escaped = latex_text(text)
    plain = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$[^$]*\$|\{\[\}", "", escaped)
    assert not set(plain) & set("\\&%$#_{}^~[\n")


def test_latex_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    page = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{latex(document())}\\end{{document}}"
    (tmp_path / "table.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_csv_holds_every_number_as_it_is() -> None:
    found = document()
    lines = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert list(lines[0]) == list(COLUMNS)
    expected = [
        (row["compression"], row["recovery"], column["title"], metric, measured["value"], measured["low"], measured["n"])
        for row in found["rows"]
        for column in found["columns"]
        if column["name"] in row["measured"]
        for metric, measured in row["measured"][column["name"]]["metrics"].items()
    ]
    assert expected == [
        (
            *(line[name] for name in ("compression", "recovery", "task", "metric")),
            float(line["value"]),
            float(line["low"]) if line["low"] else None,
            int(line["n"]),
        )
        for line in lines
    ]
    idp = next(line for line in lines if line["recovery"] == "IDP" and line["metric"] == "exact_match")
    assert (idp["model"], idp["seeds"], idp["keys"], idp["extra_parameters"]) == (
        ODD,
        "0 1",
        "evaluate/idp0 evaluate/idp1",
        "1024",
    )
    assert (float(idp["difference"]), float(idp["p_mcnemar"]), float(idp["p_holm"])) == (-0.03, 0.4, 0.4)
    assert all(line["p_mcnemar"] == "" for line in lines if line["metric"] == "other")


class _Tags(HTMLParser):
    """Every tag is closed, and the words between them are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attributes if name == "href"]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_html_shows_odd_names_as_they_are() -> None:
    page = render_html(document(), store="../my runs")
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert ODD in tags.words  # a task and a setting
    assert "<b>found</b>" in tags.words
    assert "<i>&" not in page
    assert "../my%20runs/evaluate/lora0/" in tags.links
    assert "Forgotten or displaced" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_verdict_stands_first() -> None:
    shares = {
        name: {"value": value, "low": value - 0.1, "high": value + 0.1} for name, value in (("displaced", 0.3), ("erased", 0.7))
    }
    index = {"value": 0.31, "low": 0.2, "high": 0.42}
    task = {"task": "qa", "sentence": "30 % come back <i>", "index": index, "shares": shares}
    found = document() | {"verdicts": [{"name": "conjecture/ab", "word": "mixed", "sentences": [], "tasks": [task]}]}
    page = render_html(found, store="runs")
    verdict, _, rest = page.partition("</section>")
    assert "Forgotten or displaced: mixed" in verdict
    assert "30 % come back &lt;i&gt;" in verdict
    assert "0.31 [0.20, 0.42]" in verdict
    assert "displaced 30% <small>20% to 40%" in verdict
    assert "<h2>Found</h2>" in rest


def test_flow_draws_every_item_once() -> None:
    """Heights of the bands, left and right, are the items' shares of the whole."""
    rates = document()["comparisons"][1]["rates"]
    paths = re.findall(r'<path d="M\S+ (\S+)C.*?v(\S+?)C.*?" class="band (\S+) (\S+)">', flow(rates, "a flow"))
    unit = (190 - 2 * 8 - 14) / 100
    heights = {(name, word): float(height) for _, height, name, word in paths}
    by_hand = {"kept": (63, 7), "gained": (2, 2), "lost": (5, 15), "never_known": (1, 5)}
    assert heights == {
        (name, word): pytest.approx(count * unit, abs=0.06)
        for name, counts in by_hand.items()
        for word, count in zip(("right", "wrong"), counts, strict=True)
    }


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e6))
def test_ticks_are_a_few_round_numbers_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * width <= tick <= low + width + 1e-6 * width for tick in found)
    x = linear(low, low + width, 10, 20)
    assert (x(low), x(low + width)) == pytest.approx((10, 20), abs=1e-3)

"""The report's tables, from a document written by hand."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.stages.conjecture.verdict import DISPLACED_ABOVE, FORGOTTEN_BELOW
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.drawing.layers import Series, layer_plot
from llmrepair.stages.drawing.markdown import code, plain, table
from llmrepair.stages.drawing.numbers import MARK_NOTE, significant
from llmrepair.stages.drawing.svg import COLOURS, Look, linear, ticks
from llmrepair.stages.report.figure import flow
from llmrepair.stages.report.html import render_html
from llmrepair.stages.report.long_form import COLUMNS, csv_text
from llmrepair.stages.report.paper import latex, latex_text, markdown
from llmrepair.stages.report.verdict_figure import fates_panel, index_panel, judged, verdict_figure
from llmrepair.stages.results.table import add_holm
from tests.stages.report.report_document import (
    ODD,
    by_second_rule,
    document,
    estimate,
    examined_document,
    task,
    unjudged,
    verdict,
)


def rendered(document: Any, store: str) -> str:
    return render_html(document, store, DIAGNOSTICS.values())


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


EVIL = ("=1+1", "+1", "-1|x", "@sum(a1)", "\t=1", "a|b", "a\nb", "a\r\nb", "`a`", "``|``", "=cmd|' /c calc'!a0")


@pytest.mark.parametrize("name", EVIL)
def test_a_spreadsheet_runs_no_name_and_tables_keep_their_columns(name: str) -> None:
    found = document()
    found |= {"model": name, "title": name}
    for row in found["rows"]:
        row |= {"compression": name, "recovery": name, "detail": name}
    for column in found["columns"]:
        column |= {"title": name}
    lines = list(csv.reader(io.StringIO(csv_text(found))))
    assert {len(line) for line in lines} == {len(COLUMNS)}
    assert not [
        cell for line in lines[1:] for cell in line if cell.startswith(("=", "+", "@", "\t")) or cell == name[:1] == "-"
    ]
    assert any(name in line[0] for line in lines)
    rows = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert len(rows) == 2 + len(found["rows"])
    of_card = table(("name", "x"), [[code(name), plain(name)]] * 2).splitlines()
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in of_card] == [3] * 4


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
    page = rendered(document(), store="../my runs")
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert ODD in tags.words  # a task and a setting
    assert "<b>found</b>" in tags.words
    assert "<i>&" not in page
    assert "../my%20runs/evaluate/lora0/" in tags.links
    assert "Forgotten or displaced" not in page
    assert "http" not in page.replace("http-equiv", "")


def words_of(page: str) -> str:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    return " ".join(" ".join(tags.words).split())


def test_the_second_rules_card_has_lambda_flows_and_the_path() -> None:
    of_task = by_second_rule(task("qa", "mixed", estimate(0.43, 0.12)))
    page = rendered(document() | {"verdicts": [verdict("gptq 3 bits", "edge", of_task)]}, store="runs")
    assert "Lambda <strong>0.08 [0.03, 0.13]</strong>: the share of the damage to the 24 robustly lost" in page
    assert "<li>is half or more at the edge &lt;i&gt;? 56% is <strong>This decides.</strong></li>" in page
    assert "beyond placebos, a prompt brings back" in page
    assert "the tuned prompt: 21 regained, 17 broken, net 7% of the lost" in page
    assert "qa, first 200: robustly lost, and back" in page
    assert "<svg" in page and 'aria-label="Flows, qa, first 200.' in page


def test_a_verdict_stands_first_with_all_that_was_found() -> None:
    found = document() | {"verdicts": [verdict("gptq 3 bits", "mixed", task("qa", "mixed", estimate(0.43, 0.12)))]}
    page = rendered(found, store="runs")
    section, _, rest = page.partition("</section>")
    said = words_of(section[section.index("<section") :] + "</section>")
    assert said.startswith("gptq 3 bits: mixed 40 % of qa come back <i>")
    for words in (
        "displaced 40% 35% to 45%",
        "Displacement index 0.43 [0.31, 0.55]",
        "40% come back with both (Jaccard index); were they drawn at random it would be 10% (p = 0.003)",
        "The prompt brings back 8 [3, 13] % of the lost items before it is tuned",
        "Tuning adds 17 [12, 22] points",
        "A linear probe reads 12 [7, 17] % of the lost items",
        "200 items: 60 lost, 130 kept, 10 never known, 0 gained; 4 were left out",
        "displaced (control) prompt 98.0 % [93.0, 103.0] 3.0 % [-2.0, 8.0]",
        "prompt +10.0 points [+5.0, +15.0] 0.01 0.02 4.0 1.5 3.0 %",
        "lora +10.0 points [+5.0, +15.0] 0.01 0.02 4.0",
        "Tuning seeds 0, 1",
    ):
        assert words in said
    assert 'href="runs/conjecture/gptq/"' in section
    assert "<h2>Found</h2>" in rest
    assert "Displacement index." not in page  # no picture of a single verdict


def test_a_repair_or_control_of_a_later_day_is_shown_and_what_is_missing_is_left_out() -> None:
    of_task = task("qa", "undetermined", None)
    of_task["models"]["model"]["rates"]["oracle"] = {"recovery": estimate(0.77)}
    of_task["untuned"] = of_task["readable"] = None
    of_test = verdict("gptq 3 bits", "undetermined", of_task, unjudged("text"))
    of_test["sentences"].append("other is left out")
    found = document() | {"verdicts": [of_test]}
    said = words_of(rendered(found, store="runs"))
    assert "this model oracle 77.0 %" in said
    assert said.count("text has no right or wrong answers") == said.count("other is left out") == 1
    assert "this model prompt 25.0 % [20.0, 30.0] this model lora" in said
    assert "linear probe" not in said
    assert "Displacement index " not in said.partition("In brackets")[2]


def test_what_is_inside_has_sections_where_it_is_known() -> None:
    assert not {"Is it still readable inside?", "Does it work as before?"} & set(words_of(rendered(document(), "runs")))
    said = words_of(rendered(examined_document(), "runs"))
    assert "dense: the model says the first word of 98% [96, 100] of 640 answers, the probe of its best layer (2) reads" in said
    assert "of the 53 that it does not say, 36% [31, 41] (control task 15% [10, 20])" in said
    assert f"{ODD} 1 24.0 % [19.0, 29.0] 15.0 % [10.0, 20.0] 10.0 % [5.0, 15.0]" in said
    assert "residual stream linear CKA 4 0.960 [0.958, 0.962] 0.930 [0.928, 0.932] 0.920" in said
    assert "640 tokens of 64 texts; repairs of tuning seed 0" in said


def test_a_file_of_its_own_has_both_schemes_and_no_variables() -> None:
    file = verdict_figure(examined_document())
    ElementTree.fromstring(file)
    assert "var(" not in file
    light, _, dark = file.partition("prefers-color-scheme: dark")
    for names in COLOURS["text"], COLOURS["blue"]:
        assert names[0] in light and names[1] in dark and names[1] not in light


def test_the_figure_says_in_words_what_cannot_be_drawn() -> None:
    words = " ".join(ElementTree.fromstring(verdict_figure(examined_document())).itertext())
    for said in (
        "mixed, 0.43 [0.31, 0.55]",
        "undetermined: no answer is right or wrong",
        "none of its answers is right or wrong",
        "undetermined, 0.60 [-1.40, 2.60]",
        "undetermined: there are no controls",
        "60 lost: 40% displaced, 20% latent, 40% erased",
    ):
        assert said in words


@given(st.floats(-9, 9), st.floats(0.001, 9), st.floats(0.001, 9))
def test_an_index_lies_where_the_regions_say(value: float, below: float, above: float) -> None:
    index = {"value": value, "low": value - below, "high": value + above}
    panel = index_panel(judged([verdict("gptq 3 bits", "mixed", task("qa", "mixed", index))]))
    edges = {
        name: (x, x + width)
        for x, width, name in _found(r'<rect x="(\S+)" y="\S+" width="(\S+)".*?class="region (\w+)"', panel)
    }
    assert edges["forgotten"][1] == pytest.approx(edges["mixed"][0], abs=0.11)
    assert edges["mixed"][1] == pytest.approx(edges["displaced"][0], abs=0.11)
    unit = (edges["mixed"][1] - edges["mixed"][0]) / (DISPLACED_ABOVE - FORGOTTEN_BELOW)

    def place(number: float) -> float:
        return edges["mixed"][0] + unit * (number - FORGOTTEN_BELOW)

    least, most = edges["forgotten"][0], edges["displaced"][1]
    ends = [min(max(place(index[name]), least), most) for name in ("low", "high")]
    (found,) = _found(r'<line x1="(\S+)" y1="\S+" x2="(\S+)" y2="\S+" class="interval truth"', panel)
    assert found == pytest.approx(ends, abs=0.5)
    assert len(_found("(<polygon)", panel)) == (index["low"] < -0.4) + (index["high"] > 1.4)  # arrows
    for (x,) in _found(r'translate\((\S+) \S+\) scale\(5\)" class="truth', panel):
        assert x == pytest.approx(place(value), abs=0.5)


def _found(pattern: str, drawing: object) -> list[tuple[Any, ...]]:
    """Groups of each match, numbers where they are."""
    found = [groups if isinstance(groups, tuple) else (groups,) for groups in re.findall(pattern, str(drawing))]
    return [tuple(float(group) if re.fullmatch(r"-?[\d.]+", group) else group for group in groups) for groups in found]


def test_a_bar_of_fates_is_as_long_as_their_shares() -> None:
    panel = fates_panel(judged([verdict("gptq 3 bits", "mixed", task("qa", "mixed", estimate(0.43)))]))
    widths = [width for width, height in _found(r'width="(\S+)" height="(\S+)" class="part', panel) if height == 18]
    assert [width / sum(widths) for width in widths] == pytest.approx([0.4, 0.2, 0.4], abs=0.001)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.5)), min_size=1, max_size=90))
def test_lines_and_bands_stay_on_their_panel(layers: list[tuple[float, float]]) -> None:
    panel = layer_plot("title", [Series("compressed", Look("grey"), [estimate(*layer) for layer in layers])])
    points = re.findall(r'points="([^"]+)"', str(panel))
    assert [len(each.split()) for each in points] == [2 * len(layers), len(layers)]
    for point in " ".join(points).split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= panel.width and 0 <= y <= panel.height
    assert len(re.findall(r'class="soft">\d+<', str(panel))) <= 16  # numbers of layers do not crowd


def test_flow_draws_every_item_once() -> None:
    """Heights of the bands, left and right, are the items' shares of the whole."""
    rates = document()["comparisons"][1]["rates"]
    paths = re.findall(r'<path d="M\S+ (\S+)C.*?v(\S+?)C.*?" class="band (\S+) (\S+)">', str(flow(rates, "a flow")))
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

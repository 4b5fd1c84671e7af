"""The report's page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrepair.stages import repairs
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.diagnostics.regimes.figure import regimes_figure
from llmrepair.stages.drawing.svg import Look
from llmrepair.stages.report.html import render_html
from llmrepair.stages.report.verdict_figure import verdict_figure
from tests.browser import CHROMIUM, Page, browser
from tests.stages.report.report_document import examined_document

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

COLOURS = ["rgb(255, 255, 255)", "rgb(22, 24, 29)"]
TABLE = "[aria-label=Scores] table"
ROWS = f"[...document.querySelector('{TABLE}').tBodies[0].rows]"
SCORES = f"{ROWS}.map(row => row.cells[3].dataset.value)"
REPAIRS = f"{ROWS}.map(row => row.cells[1].textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render_html(examined_document(), store="runs", diagnostics=DIAGNOSTICS.values()), encoding="utf-8")
    return file


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [375, 1280])
def test_no_complaints_and_no_scrolling_sideways(page: Page, file: Path, width: int, is_dark: bool) -> None:
    page.open(file, width, is_dark)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("innerWidth") == width
    assert page.complaints == []


def test_complaints_would_be_seen(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<script>console.error('no'); nothing()</script><img src=none.png><p style='width:900px'>"
    )
    page.open(tmp_path / "bad.html", 375, is_dark=False)
    assert {event["method"].partition(".")[0] for event in page.complaints} == {"Runtime", "Log", "Network"}
    assert page.evaluate("document.documentElement.scrollWidth") > 375


@pytest.mark.parametrize("is_dark", [False, True])
def test_colours_follow_the_system_until_told_otherwise(page: Page, file: Path, is_dark: bool) -> None:
    page.open(file, 1280, is_dark)
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == COLOURS[is_dark]
    page.click("#theme")
    assert page.evaluate(colour) == COLOURS[not is_dark]
    assert page.evaluate("theme.textContent") == ("Dark colours" if is_dark else "Light colours")


def test_a_click_or_a_key_sorts(page: Page, file: Path) -> None:
    page.open(file, 1280, is_dark=False)
    head = f"{TABLE} th:nth-child(4)"
    sorts = f"document.querySelector('{head}').getAttribute('aria-sort')"
    assert page.evaluate(sorts) is None
    page.click(f"{head} button")
    assert page.evaluate(SCORES) == ["12.5", "20.0", "110.0", ""]  # by value and not by letter; what is empty is last
    assert page.evaluate(sorts) == "ascending"
    page.press("Enter", "\r")  # on the button, which the click left focused
    assert page.evaluate(SCORES) == ["110.0", "20.0", "12.5", ""]
    assert page.evaluate(sorts) == "descending"
    page.click(f"{TABLE} th:nth-child(2) button")
    assert page.evaluate(REPAIRS) == ["IDP (2 seeds)", "LoRA", "none", "none"]
    assert page.evaluate(sorts) is None


def test_what_is_drawn_has_a_name_and_what_scrolls_can_be_reached(page: Page, file: Path) -> None:
    page.open(file, 375, is_dark=False)
    assert page.evaluate("document.querySelectorAll('svg:not([aria-label]):not([aria-hidden])').length") == 0
    assert page.evaluate("document.querySelectorAll('.scroll:not([tabindex][aria-label])').length") == 0


def test_a_print_holds_what_is_folded_and_leaves_it_folded(page: Page, file: Path) -> None:
    page.open(file, 1280, is_dark=False)
    are_open = "[...document.querySelectorAll('details.print')].map(each => each.open)"
    before = page.evaluate(are_open)
    assert not all(before)
    page.evaluate(f"addEventListener('beforeprint', () => window.printed = {are_open})")
    page.call("Page.printToPDF")
    assert page.evaluate("window.printed") == [True] * len(before)
    assert page.evaluate(are_open) == before


CUT_OFF = """[...document.querySelectorAll('svg text')].filter(text => {
  const one = text.getBoundingClientRect(), whole = text.ownerSVGElement.getBoundingClientRect();
  return one.width && (one.left < whole.left - 1 || one.right > whole.right + 1 || one.bottom > whole.bottom + 1);
}).map(text => text.textContent)"""


@pytest.mark.parametrize("width", [375, 1280])
def test_no_words_of_a_plot_are_cut_off(page: Page, file: Path, width: int) -> None:
    page.open(file, width, is_dark=False)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("is_dark", [False, True])
def test_a_figure_of_its_own(page: Page, tmp_path: Path, is_dark: bool) -> None:
    found = examined_document()
    looks = {name: Look(repair.colour, repair.shape) for name, repair in repairs.REPAIRS.items()}
    for figure in (verdict_figure(found), regimes_figure(found["regimes"][0]["likeness"], looks, "lab gptq 3 bits")):
        (tmp_path / "figure.svg").write_text(figure, encoding="utf-8")
        page.open(tmp_path / "figure.svg", 1280, is_dark)
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate("getComputedStyle(document.querySelector('rect')).fill") == COLOURS[is_dark]
        assert page.complaints == []

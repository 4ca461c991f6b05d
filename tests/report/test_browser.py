"""A report in a real browser: nothing leaves, nothing fails, all of it is reached, sorted, read and printed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import BROWSER, Page, browser

from samcls.report.report import report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt install chromium")

CONTRASTS = """
(() => {
  const parse = text => { const m = text.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = c => [0, 1, 2].map(i => { const v = c[i] / 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = node => { for (let e = node; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "STYLE"].includes(e.tagName) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e.closest("svg");
    if (svg && svg.closest("[id^=confusion]")) continue;  // on its own colours, which the next test reads
    const a = light(parse(svg ? style.fill : style.color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push([Math.round(ratio * 100) / 100, e.tagName, e.className.baseVal ?? e.className, node.textContent.trim().slice(0, 40)]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of several kinds."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for kind, store in (("tasks", "tasks"), ("seeds", "run"), ("ordinal", "ordinal")):
        report(made[kind], folder / f"{kind}.html", store=made.stores[store])
        found[kind] = folder / f"{kind}.html"
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["tasks", "seeds", "ordinal"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (1280, True)])
def test_nothing_leaves_nothing_fails_and_all_text_is_read(
    page: Page, pages: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    """No request but the file's own, an empty console, contrast of 4.5 or more, and no page wider than its window."""
    page.errors.clear()
    page.open(pages[kind], width, dark=dark)
    assert page.requests == [pages[kind].as_uri()]
    assert page.errors == []
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") != dark


def test_text_on_a_confusion_is_read_on_its_colours(page: Page, pages: dict[str, Path]) -> None:
    """Near-black on the lighter half of the blues, in light and in dark."""
    for dark in (False, True):
        page.open(pages["tasks"], dark=dark)
        fills = page.evaluate(
            "[...document.querySelectorAll('[id^=confusion] svg text')].map(t => getComputedStyle(t).fill)"
        )
        assert "rgb(10, 10, 10)" in fills


def test_contents_lead_to_their_sections(page: Page, pages: dict[str, Path]) -> None:
    """Each link of the contents brings its heading to the top of the window."""
    page.open(pages["tasks"])
    names = page.evaluate(
        "[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))"
    )
    assert len(names) >= 10
    for name in names[:-2]:  # the last ones cannot come to the top of a page that ends
        page.evaluate(f"document.querySelector('nav a[href=\"#{name}\"]').click()")
        assert page.evaluate("location.hash") == f"#{name}"
        assert (
            abs(page.evaluate(f"document.getElementById('{name}').getBoundingClientRect().top"))
            < 60
        )


def test_tables_sort_by_numbers_and_by_words(page: Page, pages: dict[str, Path]) -> None:
    """By value, not by text, both ways, empty ones last; the state is told to screen readers."""
    page.open(pages["seeds"])
    script = """
    (() => {
      const head = [...document.querySelectorAll("th button")].find(b => b.textContent === "AUC").closest("th");
      const table = head.closest("table"), place = [...head.parentElement.children].indexOf(head);
      const values = () => [...table.tBodies[0].rows].map(r => Number(r.cells[place].querySelector("data").value));
      const said = [values()];
      head.querySelector("button").click(); said.push(values(), head.getAttribute("aria-sort"));
      head.querySelector("button").click(); said.push(values(), head.getAttribute("aria-sort"));
      return said;
    })()
    """
    before, up, first, down, second = page.evaluate(script)
    assert up == sorted(before)
    assert down == sorted(before, reverse=True)
    assert (first, second) == ("ascending", "descending")


def test_the_keyboard_reaches_everything(page: Page, pages: dict[str, Path]) -> None:
    """Tab goes through the link to skip, the contents, each table and its headings, and what folds out."""
    page.open(pages["tasks"])
    wanted = page.evaluate(
        "document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]').length"
    )
    reached = set()
    for _ in range(wanted + 5):
        page.press("Tab", 9)
        reached.add(
            page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)")
        )
    hidden = page.evaluate(
        "[...document.querySelectorAll('details:not([open]) :is(button, [tabindex])')].length"
    )
    assert len(reached) >= wanted - hidden
    skip = page.evaluate("document.querySelector('.skip').getAttribute('href')")
    assert skip == "#summary"


def test_a_number_shows_its_source_and_a_picture_its_words(
    page: Page, pages: dict[str, Path]
) -> None:
    """Every number has file and place; every picture says what it shows; every table has a heading for each column."""
    page.open(pages["tasks"])
    assert page.evaluate(
        "[...document.querySelectorAll('data')].every(d => d.title.includes('#') && d.value)"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.picture [role=img]')].every(d => d.ariaLabel.length > 20)"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('tbody tr')].every(r => r.cells[0].scope === 'row')"
    )


def test_it_prints_on_a4(page: Page, pages: dict[str, Path]) -> None:
    """Some pages of 210 by 297 mm, and nothing beside them."""
    page.open(pages["tasks"])
    printed = page.pdf()
    sizes = {
        tuple(round(float(v)) for v in found)
        for found in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    }
    assert sizes <= {(595, 842), (596, 842), (594, 842)}
    assert len(re.findall(rb"/Type /Page\b", printed)) > 5

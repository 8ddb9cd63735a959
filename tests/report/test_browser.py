"""The page in a real browser: loads without complaint or request, sorts, filters, prints."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.report import write_report
from tests.report.chromium import Page, executable
from tests.report.fake import METHODS, FakeMethod, fill

pytestmark = [pytest.mark.browser, pytest.mark.skipif(executable() is None, reason="no Chromium here")]

LABELS = "Array.from(document.querySelectorAll('#d0-auroc tbody[data-rows] th')).map(h => h.textContent)"
VALUES = (
    "Array.from(document.querySelectorAll('#d0-auroc tbody[data-rows] tr'))"
    ".map(r => r.cells[{column}].dataset.value === undefined ? null : Number(r.cells[{column}].dataset.value))"
)
HEAD = "document.querySelectorAll('#d0-auroc thead button')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browser")
    methods = (
        *METHODS,
        FakeMethod("draem", "<b>DRAEM", 1.0, curves=True, fails=frozenset({("task_10", s) for s in range(3)})),
    )
    store = fill(folder / "s", methods=methods, categories=("task_2", "task_10", "task_1"))
    report = write_report(store, folder / "r.html")
    with Page(folder / "profile") as opened:
        opened.open(report)
        yield opened


def test_the_page_loads_without_complaint_and_without_a_request(page: Page) -> None:
    assert page.run("document.title").startswith("A plan made up for tests")
    assert [r for r in page.requests() if not r.startswith(("data:", "file:"))] == []
    assert [r for r in page.requests() if r.startswith("file:")] == [page.run("location.href")]
    assert page.complaints() == []


def test_a_click_sorts_a_table_and_a_second_turns_it_round(page: Page) -> None:
    page.run(f"{HEAD}[1].click()")
    values = page.run(VALUES.format(column=1))
    assert values == sorted(values, reverse=True)
    assert page.run(f"{HEAD}[1].closest('th').getAttribute('aria-sort')") == "descending"
    page.run(f"{HEAD}[1].click()")
    assert page.run(VALUES.format(column=1)) == sorted(values)
    assert page.run("document.querySelector('#d0-auroc tbody.mean th').textContent") == "Mean"


def test_what_has_no_figure_stays_last_whichever_way(page: Page) -> None:
    for _ in range(2):
        page.run(f"{HEAD}[4].click()")
        values = page.run(VALUES.format(column=4))
        assert values[-1] is None
        assert None not in values[:-1]


def test_names_sort_as_people_count_with_the_keyboard_alone(page: Page) -> None:
    page.run(f"{HEAD}[0].focus()")
    page.key("Enter", 13, "\r")
    assert page.run(LABELS) == ["task_1", "task_2", "task_10"]
    page.key(" ", 32, " ")
    assert page.run(LABELS) == ["task_10", "task_2", "task_1"]


def test_the_filter_finds_failures(page: Page) -> None:
    total = page.run("document.querySelectorAll('.experiment').length")
    assert total == 3 * (3 + 3 + 3 + 1)
    assert page.run("document.getElementById('matches').textContent") == f"{total} of {total}"
    page.run(
        "(f => {f.value = 'failed task_10'; f.dispatchEvent(new Event('input'))})(document.getElementById('filter'))"
    )
    shown = page.run("Array.from(document.querySelectorAll('.experiment')).filter(e => !e.hidden).length")
    assert shown == 3


def test_the_slider_and_the_outlines_change_the_gallery(page: Page) -> None:
    page.run("(s => {s.value = 20; s.dispatchEvent(new Event('input'))})(document.querySelector('[data-opacity]'))")
    assert float(page.run("getComputedStyle(document.querySelector('.heat')).opacity")) == pytest.approx(0.2)
    assert page.run("getComputedStyle(document.querySelector('.outline')).display") != "none"
    page.run("document.querySelector('[data-outlines]').click()")
    assert page.run("getComputedStyle(document.querySelector('.outline')).display") == "none"


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_no_screen_scrolls_sideways(page: Page, width: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_dark_and_light_have_contrast(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        ratio = page.run(
            """(() => {
              const light = (c) => {
                const [r, g, b] = c.match(/[\\d.]+/g).map((v) => {
                  v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const back = light(getComputedStyle(document.querySelector("main > section")).backgroundColor);
              return Math.min(...["h2", ".notes", ".published, .muted", ".is-bad", "td.best .value"].map((s) => {
                const found = light(getComputedStyle(document.querySelector(`main ${s}`)).color);
                return (Math.max(found, back) + 0.05) / (Math.min(found, back) + 0.05);
              }));
            })()"""
        )
        assert ratio >= 4.5, scheme


def test_it_prints(page: Page, tmp_path: Path) -> None:
    data = page.call("Page.printToPDF")["data"]
    assert base64.b64decode(data).startswith(b"%PDF")
    assert page.complaints() == []

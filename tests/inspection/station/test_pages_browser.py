"""The web page in a real browser: figures that follow the sliders, the stream, the keyboard, no complaint.

``ANDON_AXE`` names a file of axe-core (``axe.min.js`` of the npm package); without it nothing is checked with it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from andon.inspection import Inspector, percent
from andon.inspection.station.journal import Retention
from andon.inspection.station.outbox import Outbox
from andon.inspection.station.station import Station
from tests.inspection.station.serving import image_bytes, served
from tests.inspection.station.test_delivering import QUICK, Refusing, wait_for
from tests.report.chromium import Page, executable

pytestmark = [pytest.mark.browser, pytest.mark.skipif(executable() is None, reason="no Chromium here")]

HOSTILE = "<img src=x onerror=\"document.title='pwned'\">.png"
ADDRESSES = (
    "/",
    "/history",
    "/history?verdict=stop",
    "/thresholds",
    "/drift",
    "/improve",
    "/outputs",
    "/login",
    "/history/1",
    "/history/99999",
)


SET = """(field => {{
  field.value = "{value}";
  field.dispatchEvent(new Event("{event}"));
}})(document.getElementById("{id}"))"""
"""Sets a field, as a hand does."""


@pytest.fixture(scope="module")
def station(inspector_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    folder = tmp_path_factory.mktemp("page")
    file = shutil.copy(inspector_file, folder / "seal.andon")  # thresholds are moved in it
    made = Station({"seal": file}, folder / "station", retention=Retention(pass_share=1.0))
    for seed in range(100, 130):
        made.inspect(image_bytes(seed, defect=seed % 7 == 0), name=HOSTILE if seed == 105 else f"line-{seed}.png")
    made.review(6, "good", "Ada", "glare")
    receivers = [
        Refusing(f"webhook http://mes.plant/{'andon/' * 12}", HOSTILE + " no" * 100),
        Refusing("mqtt broker/line"),
    ]
    made.outbox = box = Outbox(folder / "outbox.sqlite", receivers, QUICK)
    for seed in (200, 201):
        made.inspect(image_bytes(seed, defect=True), name=f"line-{seed}.png")
    wait_for(lambda: all(len(box.aside(receiver.name)) == 2 for receiver in receivers))
    receivers[1].takes = True
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(station: Station) -> Iterator[str]:
    with served(station) as found:
        yield found


@pytest.fixture(scope="module")
def page(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile"), (1280, 900)) as opened:
        yield opened


def wait(page: Page, script: str, seconds: float = 20) -> None:
    """Until a script's value is true."""
    until = time.monotonic() + seconds
    while not page.run(script):
        assert time.monotonic() < until, script
        time.sleep(0.05)


def focused(page: Page) -> str:
    """What has the focus, as its text, name or place."""
    return str(page.run("(e => e.id || e.name || e.textContent.trim() || e.className)(document.activeElement)"))


def tab(page: Page) -> str:
    page.key("Tab", 9)
    return focused(page)


def tab_to(page: Page, wanted: str, most: int = 40) -> None:
    assert any(tab(page) == wanted for _ in range(most)), wanted


def screen(page: Page, width: int, scheme: str = "light") -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)


@pytest.mark.parametrize("path", ADDRESSES[:-1])
def test_pages_load_without_complaint_and_ask_nobody_else(page: Page, address: str, path: str) -> None:
    page.events.clear()
    page.visit(address + path)
    time.sleep(0.3)
    assert page.complaints() == []
    assert [request for request in page.requests() if not request.startswith((address, "data:"))] == []
    assert page.requests()
    assert "pwned" not in page.run("document.title")


@pytest.mark.parametrize("width", [768, 1024, 1280])
def test_no_page_scrolls_sideways(page: Page, address: str, width: int) -> None:
    screen(page, width)
    for path in ADDRESSES:
        page.visit(address + path)
        assert page.run("document.documentElement.scrollWidth") <= width, path
    screen(page, 1280)


def test_the_sliders_say_what_python_says(page: Page, address: str, inspector: Inspector) -> None:
    page.visit(address + "/thresholds")
    calibration, n = inspector.calibration, len(inspector.calibration)
    for side in ("stop", "look"):
        for place in range(0, 1001, 50):
            page.run(SET.format(id=f"slide-{side}", value=place, event="input"))
            value = float(page.run(f"document.getElementById('value-{side}').value"))
            count = page.run(f"document.querySelector('[data-count={side}]').textContent")
            rate = page.run(f"document.querySelector('[data-rate={side}]').textContent")
            interval = calibration.interval(value)
            assert count == f"{calibration.alarms(value)} of {n}"
            assert f"between {percent(interval.low)} and {percent(interval.high)} " in rate
            assert f"at most {percent(calibration.rate_of(value))}." in rate
            at = [float(page.run(f"document.getElementById('value-{s}').value")) for s in ("look", "stop")]
            assert at[0] <= at[1]


def test_a_rate_sets_the_threshold_that_promises_it(page: Page, address: str, inspector: Inspector) -> None:
    page.visit(address + "/thresholds")
    rate = repr(inspector.calibration.threshold(0.1))
    page.run(SET.format(id="rate", value=rate, event="change"))
    value = float(page.run("document.getElementById('value-stop').value"))
    assert value == inspector.calibration.threshold(0.1)
    page.run("document.getElementById('thresholds').reset()")
    wait(page, f"Number(document.getElementById('value-stop').value) === {inspector.thresholds.stop!r}")
    assert page.run("document.querySelector('[data-count=stop]').textContent").startswith("0 of ")


def test_thresholds_are_moved_with_the_keyboard_alone(page: Page, address: str, station: Station) -> None:
    before = station.inspector().thresholds
    page.visit(address + "/thresholds")
    order = [tab(page) for _ in range(9)]
    assert order[0] == "Skip to the content"
    assert order[1:7] == ["Inspect", "History", "Thresholds", "Drift", "Improve", "Outputs"]
    assert order[7:] == ["theme", "slide-stop"]
    told = page.run("document.getElementById('slide-stop').getAttribute('aria-valuetext')")
    for _ in range(5):
        page.key("ArrowRight", 39)
    assert page.run("document.getElementById('slide-stop').getAttribute('aria-valuetext')") != told
    wanted = float(page.run("document.getElementById('value-stop').value"))
    assert wanted > before.stop
    tab_to(page, "Apply…")
    page.events.clear()
    page.key("Enter", 13, "\r")
    wait(page, "document.readyState === 'complete' && !!document.getElementById('confirm-title')")
    tab_to(page, "who")
    page.call("Input.insertText", text="Ada")
    page.key("Enter", 13, "\r")
    wait(page, "document.readyState === 'complete' && !!document.querySelector('.note.good')")
    assert station.inspector().thresholds.stop == wanted
    assert station.inspector().thresholds.look == before.look
    station.move_thresholds("seal", before.look, before.stop)


def test_a_review_is_given_with_the_keyboard_alone(page: Page, address: str, station: Station) -> None:
    page.visit(address + "/history/13")
    tab_to(page, "word")
    page.key("ArrowDown", 40)
    page.key("ArrowDown", 40)
    page.key("ArrowUp", 38)
    tab_to(page, "who")
    page.run("document.activeElement.value = ''")
    page.call("Input.insertText", text="Grace <b>")
    assert tab(page) == "note"
    page.call("Input.insertText", text="a scratch")
    page.key("Enter", 13, "\r")
    wait(page, "document.readyState === 'complete' && !!document.querySelector('.note.good')")
    review = station.journal.entry(13).review
    assert review is not None
    assert (review.who, review.note) == ("Grace <b>", "a scratch")
    assert review.word == "defective"
    page.visit(address + "/history/14")
    assert page.run("document.getElementById('who').value") == "Grace <b>"  # remembered


def test_what_was_set_aside_is_sent_again_with_the_keyboard_alone(page: Page, address: str, station: Station) -> None:
    assert station.outbox is not None
    page.visit(address + "/outputs")
    assert page.run("document.querySelectorAll('main h2').length") == 2
    tab_to(page, "who-2")
    page.run("document.activeElement.value = ''")
    page.call("Input.insertText", text="Grace <b>")
    assert tab(page) == "Send again"
    page.events.clear()
    page.key("Enter", 13, "\r")
    wait(page, "document.readyState === 'complete' && !!document.querySelector('.note.good')")
    assert page.complaints() == []
    refusing, taking = station.outbox.status()
    assert refusing.aside >= 2
    assert taking.aside == 0
    wait_for(lambda: station.outbox is not None and station.outbox.pending()[taking.name] == 0)
    assert station.outbox.status()[1].sent >= 2
    assert [event.who for event in station.journal.events("")] == ["Grace <b>"]
    assert "Grace <b>" in page.run("document.querySelector('main').textContent")


def test_the_heat_map_fades_and_layers_go(page: Page, address: str) -> None:
    page.visit(address + "/history/6")
    opacity = "Number(getComputedStyle(document.querySelector('[data-layer=heat]')).opacity)"
    assert page.run(opacity) == 1
    page.run("document.getElementById('opacity').focus()")
    for _ in range(4):
        page.key("ArrowLeft", 37)
    assert page.run(opacity) == pytest.approx(0.8)
    boxes = "getComputedStyle(document.querySelector('[data-layer=boxes]')).display"
    assert page.run(boxes) != "none"
    page.run("document.querySelector('[data-shows=boxes]').click()")
    assert page.run(boxes) == "none"
    wide = page.run("[...document.querySelectorAll('.sheet img')].map(i => [i.clientWidth, i.clientHeight].join())")
    assert len(set(wide)) == 1  # the layers lie on the image


def test_the_stream_is_followed_and_pauses(page: Page, address: str, station: Station) -> None:
    page.visit(address + "/")
    first = station.inspect(image_bytes(500, defect=True), name="next.png").entry.id
    wait(page, f"document.querySelector('[data-shown]').dataset.shown === '{first}'")
    assert page.run("document.getElementById('spoken').textContent") == "stop"
    page.run("document.getElementById('pause').click()")
    station.inspect(image_bytes(501), name="later.png")
    time.sleep(2)
    assert page.run("document.querySelector('[data-shown]').dataset.shown") == str(first)
    page.run("document.getElementById('pause').click()")
    wait(page, f"document.querySelector('[data-shown]').dataset.shown === '{first + 1}'")


def test_an_image_is_dropped_and_one_that_is_none(page: Page, address: str, station: Station) -> None:
    page.visit(address + "/")
    drop = """(async () => {{
      const bytes = Uint8Array.from(atob("{data}"), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "{name}", {{type: "image/png"}}));
      document.dispatchEvent(new DragEvent("drop", {{dataTransfer: data, bubbles: true, cancelable: true}}));
    }})()"""
    sent = base64.b64encode(image_bytes(700, defect=True)).decode()
    page.run(drop.format(data=sent, name="dropped.png"))
    wait(page, "document.getElementById('result').textContent.includes('dropped.png')")
    newest = station.journal.entries(limit=1)[0]
    assert (newest.name, newest.verdict) == ("dropped.png", "stop")
    assert page.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    page.events.clear()
    page.run(drop.format(data=base64.b64encode(b"nonsense").decode(), name="bad.png"))
    wait(page, "!document.getElementById('error').hidden")
    assert "bad.png" in page.run("document.getElementById('error').textContent")


def test_light_and_dark_are_chosen_and_kept(page: Page, address: str) -> None:
    screen(page, 1280, "dark")
    page.visit(address + "/drift")
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.run(back)
    page.run("document.getElementById('theme').click()")
    light = page.run(back)
    assert dark != light
    page.visit(address + "/history")
    assert page.run(back) == light
    page.run("localStorage.removeItem('andon-theme')")
    screen(page, 1280, "light")
    page.visit(address + "/history")
    assert page.run(back) == light


def test_a_verdict_is_told_by_word_and_shape(page: Page, address: str) -> None:
    page.visit(address + "/history")
    shapes = page.run("[...document.querySelectorAll('fieldset .word')].map(w => w.textContent + w.innerHTML)")
    assert len(shapes) == len(set(shapes)) == 4
    assert page.run("document.querySelectorAll('tbody .word svg').length") >= 30


@pytest.mark.skipif("ANDON_AXE" not in os.environ, reason="ANDON_AXE names no file of axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(page: Page, address: str, scheme: str) -> None:
    axe = Path(os.environ["ANDON_AXE"]).read_text(encoding="utf-8")
    for width in (768, 1280):
        screen(page, width, scheme)
        for path in ADDRESSES:
            page.visit(address + path)
            page.run(axe + ";0")
            found = json.loads(page.run("axe.run().then(r => JSON.stringify([r.violations, r.passes.length]))"))
            assert found[0] == [], (path, width)
            assert found[1] > 15
    screen(page, 1280)

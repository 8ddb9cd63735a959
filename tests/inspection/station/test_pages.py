"""The web page as the server renders it: figures, filters, reviews, hostile texts, pictures."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from andon.core import DetectorError, StoreError
from andon.inspection import Inspector, overlay_image, percent, train_inspector
from andon.inspection.file import InspectorFile
from andon.inspection.overlay import heat_layer
from andon.inspection.station.served import Loaded
from andon.inspection.station.station import Station
from tests.inspection.parts import SIZE, part
from tests.inspection.station.serving import TOKEN, image_bytes

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from andon.inspection.station._auth import Tokens
from andon.inspection.station._views import Trace
from andon.inspection.station.service import create_app

HOSTILE = "<script>alert(1)</script>\"'&><img src=x onerror=alert(1)>.png"
PAGES = ("/", "/history", "/thresholds", "/drift", "/improve", "/login")


@pytest.fixture
def client(station: Station) -> Iterator[TestClient]:
    with TestClient(create_app(station), follow_redirects=False) as client:
        yield client


def sent(station: Station, seed: int, name: str = "image.png", *, defect: bool = False) -> int:
    return station.inspect(image_bytes(seed, defect=defect), name=name).entry.id


def attributes(text: str) -> set[tuple[str, str]]:
    """The attributes of a page's elements, as a browser reads them: (element, name)."""
    found: set[tuple[str, str]] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update((tag, name) for name, _ in attrs)

    Reader().feed(text)
    return found


def test_pages_have_nothing_that_the_security_policy_forbids(client: TestClient, station: Station) -> None:
    first = sent(station, 100, defect=True)
    for path in (*PAGES, f"/history/{first}"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-store"
        assert "'self'" in answer.headers["content-security-policy"]
        text = answer.text
        assert "<style" not in text, path
        assert not any(name == "style" or name.startswith("on") for _, name in attributes(text)), path
        for script in re.findall(r"<script([^>]*)>", text):
            assert "src=" in script or 'type="application/json"' in script, path
        for address in re.findall(r'(?:src|href)="([^"#]*)"', text):
            assert address.startswith("/"), address  # works offline: nothing from elsewhere


@pytest.mark.parametrize("name", ["station.css", "theme.js", "layers.js", "inspect.js", "entry.js", "thresholds.js"])
def test_files_beside_the_pages(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
    assert client.get("/static/pages.py").status_code == 404
    assert client.get("/static/..%2fpages.py").status_code == 404


def test_an_upload_without_a_script_leads_to_its_entry(client: TestClient, station: Station) -> None:
    answer = client.post("/inspect", files={"file": ("p1.png", image_bytes(100, defect=True), "image/png")})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/history/1"
    entry = station.journal.entry(1)
    assert entry.verdict == "stop"
    page = client.get("/history/1").text
    assert f"{entry.score:.4g}" in page
    assert f"<span>{entry.verdict}</span>" in page
    assert unescape(station.inspector().promise()[0]) in unescape(page)


def test_an_upload_by_the_script_gives_the_part_of_the_page(client: TestClient) -> None:
    files = {"file": ("p1.png", image_bytes(100), "image/png")}
    answer = client.post("/inspect", files=files, headers={"X-Part": "1"})
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert 'data-shown="1"' in answer.text


@pytest.mark.parametrize("data", [b"", b"no image", image_bytes(1)[:200]])
def test_what_is_no_image_is_said_in_a_page(client: TestClient, station: Station, data: bytes) -> None:
    files = {"file": ("bad.png", data, "image/png")}
    answer = client.post("/inspect", files=files)
    assert answer.status_code == 422
    assert "<h1>This image cannot be inspected</h1>" in answer.text
    by_script = client.post("/inspect", files=files, headers={"X-Part": "1"})
    assert by_script.status_code == 422
    assert by_script.json()["error"]["message"]
    assert client.post("/inspect").status_code == 422
    assert station.journal.entries() == []


def test_hostile_texts_are_escaped_everywhere(client: TestClient, station: Station) -> None:
    first = sent(station, 100, HOSTILE, defect=True)
    form = {"word": "good", "who": HOSTILE, "note": HOSTILE}
    assert client.post(f"/history/{first}/review", data=form).status_code == 303
    move = {"look": "5", "stop": "6", "who": HOSTILE, "confirmed": "yes"}
    assert client.post("/thresholds", data=move).status_code == 303
    shown = 0
    for path in (*PAGES, f"/history/{first}", "/latest", f"/history?inspector={HOSTILE}", "/drift?done=<b>"):
        text = client.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert not any(name.startswith("on") for _, name in attributes(text))
        shown += "&lt;script&gt;alert" in text
    assert shown >= 6
    assert HOSTILE in [unescape(title) for title in re.findall(r'title="([^"]*)"', client.get("/latest").text)]


def test_latest_is_empty_until_something_is_new(client: TestClient, station: Station) -> None:
    assert client.get("/latest?after=0").status_code == 204
    first = sent(station, 100)
    assert client.get("/latest?after=0").status_code == 200
    assert client.get(f"/latest?after={first}").status_code == 204


def test_the_table_of_the_thresholds_is_what_python_says(client: TestClient, station: Station) -> None:
    calibration = station.inspector().calibration
    table = json.loads(re.findall(r'id="table">(.*?)</script>', client.get("/thresholds").text)[0])
    assert len(table["rows"]) == len(table["scores"]) + 1
    scores, n = np.sort(calibration.scores), len(calibration)
    between = (scores[1:] + scores[:-1]) / 2
    for threshold in [scores[0] - 1, *scores, *between, np.nextafter(scores[3], -np.inf), scores[-1] + 1]:
        count, rate = table["rows"][bisect_right(table["scores"], threshold)]
        alarms = sum(float(s) > threshold for s in scores)
        low = stats.beta.ppf(0.025, alarms, n - alarms + 1) if alarms else 0.0
        high = stats.beta.ppf(0.975, alarms + 1, n - alarms) if alarms < n else 1.0
        assert count == f"{alarms} of {n}"
        assert f"between {percent(low)} and {percent(high)} " in rate
        assert f"at most {percent((1 + alarms) / (n + 1))}." in rate
        assert calibration.sentence(threshold).startswith(f"at this threshold {alarms} of your {n} good parts")


def test_thresholds_move_once_they_are_confirmed(client: TestClient, station: Station) -> None:
    before = station.inspector().thresholds
    asked = client.post("/thresholds", data={"look": "7.5", "stop": "9.25"})
    assert asked.status_code == 200
    assert "Apply these thresholds" in asked.text
    assert station.inspector().thresholds == before
    unsigned = client.post("/thresholds", data={"look": "7.5", "stop": "9.25", "confirmed": "yes", "who": " "})
    assert "Apply these thresholds" in unsigned.text
    assert station.inspector().thresholds == before
    form = {"look": "7.5", "stop": "9.25", "confirmed": "yes", "who": "Ada"}
    assert client.post("/thresholds", data=form).status_code == 303
    assert (station.inspector().thresholds.look, station.inspector().thresholds.stop) == (7.5, 9.25)
    assert "Ada" in client.get("/thresholds").text


@pytest.mark.parametrize(
    ("look", "stop"), [("9", "8"), ("nan", "1"), ("0", "inf"), ("", ""), ("a", "1"), ("1e999", "2")]
)
def test_thresholds_that_are_none(client: TestClient, station: Station, look: str, stop: str) -> None:
    before = station.inspector().thresholds
    answer = client.post("/thresholds", data={"look": look, "stop": stop, "confirmed": "yes", "who": "Ada"})
    assert answer.status_code == 400
    assert "thresholds must be numbers" in answer.text
    assert station.inspector().thresholds == before


def test_the_history_filters_and_pages(client: TestClient, station: Station) -> None:
    entry = station.journal.entry(sent(station, 100, defect=True))
    at = time.time() - 1000
    for number in range(120):
        word = ("pass", "look", "stop", "part not found")[number % 4]
        station.journal.append(
            replace(entry, name=f"n{number}.png", verdict=word, at=at + number, digest=f"{number:x}")
        )

    def names(query: str) -> list[str]:
        return re.findall(r'<a href="/history/\d+">(n\d+)\.png', client.get(f"/history?{query}").text)

    stops = names("verdict=stop&verdict=look")
    assert len(stops) == 50
    assert {int(name[1:]) % 4 for name in stops} == {1, 2}
    seen: list[str] = []
    link: str | None = "/history"
    while link is not None:
        text = client.get(link).text
        seen += re.findall(r'<a href="/history/\d+">(n\d+)\.png', text)
        older = re.search(r'href="([^"]*)" rel="next"', text)
        link = unescape(older[1]) if older else None
    assert seen == [f"n{number}" for number in range(119, -1, -1)]
    assert names("reviewed=yes") == []
    from_then = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at + 100))
    assert 15 <= len(names(f"since={from_then}")) <= 20
    assert len(names(f"until={from_then}")) == 50
    assert client.get("/history?since=yesterday").status_code == 400
    assert client.get("/history?inspector=nobody").status_code == 404
    assert client.get("/history/999999999").status_code == 404
    assert client.get(f"/history/{10**40}").status_code == 404


def test_reviews_are_written_and_lead_to_the_next(client: TestClient, station: Station) -> None:
    ids = [sent(station, 100 + k, defect=True) for k in range(3)]
    answer = client.post(f"/history/{ids[2]}/review", data={"word": "defective", "who": "Ada", "next": "yes"})
    assert answer.headers["location"] == f"/history/{ids[1]}?done=review"
    answer = client.post(
        f"/history/{ids[0]}/review", data={"word": "good", "who": "Ada", "note": "glare", "next": "yes"}
    )
    assert answer.headers["location"] == f"/history/{ids[1]}?done=review"
    answer = client.post(f"/history/{ids[1]}/review", data={"word": "good", "who": "Ada", "next": "yes"})
    assert answer.headers["location"] == "/history?done=all-reviewed"
    review = station.journal.entry(ids[0]).review
    assert review is not None
    assert (review.word, review.who, review.note) == ("good", "Ada", "glare")
    assert "glare" in client.get(f"/history/{ids[0]}").text
    for form in ({"word": "good", "who": "  "}, {"word": "fine", "who": "Ada"}, {}):
        assert client.post(f"/history/{ids[0]}/review", data=form).status_code == 400
    assert "Good: overrules stop" in client.get(f"/history/{ids[0]}").text


def test_pictures_are_made_anew_and_fit_one_another(client: TestClient, station: Station) -> None:
    first = sent(station, 100, defect=True)
    picture = Image.open(io.BytesIO(client.get(f"/history/{first}/image.jpg").content))
    assert (picture.format, picture.size) == ("JPEG", SIZE[::-1])
    assert np.abs(np.asarray(picture, dtype=int) - part(100, defect=True)).mean() < 6
    thumb = Image.open(io.BytesIO(client.get(f"/history/{first}/thumb.jpg").content))
    assert thumb.format == "JPEG"
    heat = Image.open(io.BytesIO(client.get(f"/history/{first}/heat.png").content))
    assert (heat.format, heat.mode, heat.size) == ("PNG", "RGBA", SIZE[::-1])
    opacity = np.asarray(heat)[..., 3]
    box = station.journal.entry(first).regions[0]
    assert opacity[box.y + box.height // 2, box.x + box.width // 2] > 100
    assert client.get("/history/77/image.jpg").status_code == 404
    assert client.get(f"/ignored/seal/{station.served().model}.png").status_code == 404


def test_an_image_that_was_not_kept_is_said(client: TestClient, station: Station) -> None:
    entry = station.journal.entry(sent(station, 100, defect=True))
    lost = station.journal.append(replace(entry, digest="ab" * 32))
    text = client.get(f"/history/{lost.id}").text
    assert "The image was not kept" in text
    assert f"/history/{lost.id}/image.jpg" not in text
    assert client.get(f"/history/{lost.id}/image.jpg").status_code == 404


def test_what_another_model_said_has_no_heat_map_of_this_one(client: TestClient, station: Station) -> None:
    entry = station.journal.entry(sent(station, 100, defect=True))
    other = station.journal.append(replace(entry, model="0" * 12))
    text = client.get(f"/history/{other.id}").text
    assert "not at the station any more" in text
    assert "heat.png" not in text
    assert f"/history/{other.id}/image.jpg" in text
    assert client.get(f"/history/{other.id}/heat.png").status_code == 404


def test_the_layer_over_the_image_is_the_overlay(inspector: Inspector) -> None:
    image = part(100, defect=True)
    verdict = inspector.inspect(image)
    layer = heat_layer(inspector, verdict)
    assert layer is not None
    under = Image.fromarray(image).convert("RGBA")
    laid = np.asarray(Image.alpha_composite(under, Image.fromarray(layer)).convert("RGB"), dtype=int)
    whole = overlay_image(inspector, verdict, image)
    drawn = whole[-SIZE[0] :, : SIZE[1]].astype(int)
    assert np.abs(laid - drawn).max() <= 3
    assert layer[..., 3].max() > 0
    small = heat_layer(inspector, verdict, max_side=48)
    assert small is not None
    assert small.shape == (36, 48, 4)


def test_what_is_ignored_is_drawn(inspector_file: Path, tmp_path: Path) -> None:
    config = {"transform": {"size": [16, 16]}}
    masked = train_inspector([part(seed) for seed in range(20)], "thumbnail-nn", config=config, roi="0,0,48,72")
    station = Station({"half": masked, "whole": inspector_file}, tmp_path / "s")
    with TestClient(create_app(station)) as client:
        entry = station.inspect(image_bytes(100), inspector="half").entry
        text = client.get(f"/history/{entry.id}").text
        address = re.findall(r'src="(/ignored/[^"]*)"', text)[0]
        layer = np.asarray(Image.open(io.BytesIO(client.get(address).content)))
        assert layer[36, 20, 3] == 0
        assert layer[36, 80, 3] > 100
        assert 'name="inspector"' in text  # of several one is chosen
        assert 'value="whole"' in text
        assert client.get(address.replace("half", "whole")).status_code == 404
    station.close()


def test_aligned_parts_are_shown_in_the_frame_of_the_places(tmp_path: Path) -> None:
    config = {"transform": {"size": [16, 16]}}
    aligned = train_inspector([part(seed) for seed in range(8)], "thumbnail-nn", config=config, align=(20, 15, 56, 42))
    station = Station({"seal": aligned}, tmp_path / "s")
    out = io.BytesIO()
    Image.fromarray(part(200, defect=True, shift=(6, 4))).save(out, "PNG")
    with TestClient(create_app(station)) as client:
        entry = station.inspect(out.getvalue()).entry
        assert entry.score is not None
        shown = np.asarray(Image.open(io.BytesIO(client.get(f"/history/{entry.id}/image.jpg").content)), dtype=int)
        straight, moved = part(0, defect=True).astype(int), part(0, defect=True, shift=(6, 4)).astype(int)
        inner = (slice(12, 60), slice(16, 80))
        assert np.abs(shown - straight)[inner].mean() < 8 < np.abs(shown - moved)[inner].mean()
        with mock.patch.object(Station, "look_again", side_effect=AssertionError("image and map are of one look")):
            assert client.get(f"/history/{entry.id}/heat.png").status_code == 200
    station.close()


def test_the_drift_page_says_what_the_monitor_says(client: TestClient, station: Station) -> None:
    assert "Nothing has been inspected" in client.get("/drift").text
    for seed in range(100, 112):
        sent(station, seed)
    served = station.served()
    text = unescape(client.get("/drift").text)
    assert served.monitor.state.sentence in text
    assert text.count('<svg class="chart" viewBox="0 0 960') == 2
    trace = Trace(served, 0.0)
    trace.follow(station.journal)
    assert trace.logs[-1] == pytest.approx(served.monitor.state.log_evidence, rel=1e-12)
    sent(station, 112)
    trace.follow(station.journal)
    trace.follow(station.journal)
    assert len(trace.logs) == 13
    assert trace.logs[-1] == pytest.approx(served.monitor.state.log_evidence, rel=1e-12)
    assert client.post("/drift/reset", data={"who": ""}).status_code == 400
    assert client.post("/drift/reset", data={"who": "Ada"}).status_code == 303
    assert served.monitor.state.n == 0
    assert "Nothing has been inspected" in client.get("/drift").text


def test_an_alarm_is_shown_as_one(client: TestClient, station: Station) -> None:
    for seed in range(100, 140):
        sent(station, seed, defect=True)
    state = station.monitor().state
    assert state.alarmed
    text = client.get("/drift").text
    assert 'role="alert"' in text
    assert state.sentence in unescape(text)
    assert 'action="/drift/reset' in text


def test_good_images_improve_the_inspector_and_it_goes_back(inspector_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "seal.andon"
    shutil.copy(inspector_file, path)
    station = Station({"seal": path}, tmp_path / "s")
    with TestClient(create_app(station), follow_redirects=False) as client:
        assert client.post("/improve/propose").status_code == 400
        for seed in (300, 301, 302):
            entry = sent(station, seed, f"line-{seed}.png")
            station.review(entry, "good", "Ada")
        bad = sent(station, 303, defect=True)
        station.review(bad, "defective", "Ada")
        text = client.get("/improve").text
        chosen = re.findall(r'name="entry" value="(\d+)"', text)
        assert len(chosen) == 3
        before = station.served().fingerprint
        assert client.post("/improve/propose", data={"entry": chosen}).status_code == 303
        for _ in range(200):
            text = client.get("/improve").text
            if "Proposed" in text:
                break
            time.sleep(0.05)
        assert "Proposed: 3 more good images" in text
        assert "earlier good images (20)" in text
        assert "recorded defects (1)" in text
        assert station.served().fingerprint == before
        assert client.post("/improve/accept", data={"who": ""}).status_code == 400
        assert client.post("/improve/accept", data={"who": "Ada"}).status_code == 303
        after = station.served().fingerprint
        assert after != before
        assert len(station.inspector().calibration) == 23
        assert client.post("/improve/accept", data={"who": "Ada"}).status_code == 400
        assert client.post("/improve/back", data={"to": "0" * 12, "who": "Ada"}).status_code >= 400
        assert before in client.get("/improve").text
        assert client.post("/improve/back", data={"to": before, "who": "Ada"}).status_code == 303
        assert station.served().fingerprint == before
        assert len(station.inspector().calibration) == 20
    station.close()


@pytest.mark.parametrize("fault", ["model", "journal"])
def test_a_file_that_the_station_cannot_take_is_put_back(
    inspector_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = tmp_path / "seal.andon"
    shutil.copy(inspector_file, path)
    station = Station({"seal": path}, tmp_path / "s")

    def broken(*_: object) -> None:
        raise (DetectorError if fault == "model" else StoreError)(f"the {fault} is broken")

    def with_fault(address: str, form: dict[str, str]) -> None:
        """What fails leaves file and station as they were; without the fault it is done."""
        content, served = path.read_bytes(), station.served()
        with monkeypatch.context() as patched:
            if fault == "model":
                patched.setattr(Loaded, "of", broken)
            else:
                patched.setattr(station.journal, "event", broken)
            answer = client.post(address, data=form)
            assert answer.status_code == 503
            assert f"the {fault} is broken" in answer.text
        assert path.read_bytes() == content
        assert station.served() is served
        assert client.post(address, data=form).status_code == 303
        assert path.read_bytes() != content
        assert InspectorFile.read(path).fingerprint == station.served().fingerprint

    with TestClient(create_app(station), follow_redirects=False) as client:
        before = station.served().fingerprint
        entry = sent(station, 300)
        station.review(entry, "good", "Ada")
        assert client.post("/improve/propose", data={"entry": str(entry)}).status_code == 303
        until = time.monotonic() + 30
        while "Proposed" not in client.get("/improve").text:
            assert time.monotonic() < until
            time.sleep(0.05)
        with_fault("/improve/accept", {"who": "Ada"})
        with_fault("/improve/back", {"to": before, "who": "Ada"})
        if fault == "journal":
            with_fault("/thresholds", {"look": "7.5", "stop": "9.25", "confirmed": "yes", "who": "Ada"})
    station.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        ["/", "/latest", "/history", "/thresholds", "/drift", "/improve", "/history/1", "/static/x", "/outputs"]
    ),
    query=st.dictionaries(
        st.sampled_from(["inspector", "after", "before", "verdict", "since", "until", "reviewed", "done"]),
        st.one_of(st.text(max_size=30), st.integers().map(str), st.just("seal"), st.just("9999-12-31T23:59")),
    ),
)
def test_no_query_ends_in_an_error_of_the_servers(client: TestClient, path: str, query: dict[str, str]) -> None:
    assert client.get(path, params={k: v.encode("utf-8", "replace") for k, v in query.items()}).status_code < 500


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/inspect", "/history/1/review", "/thresholds", "/drift/reset", "/improve/propose",
                          "/improve/accept", "/improve/drop", "/improve/back", "/outputs/send-again"]),
    form=st.dictionaries(
        st.sampled_from(["word", "who", "note", "next", "look", "stop", "confirmed", "entry", "to", "file", "output"]),
        st.one_of(st.text(max_size=30), st.floats().map(str), st.integers().map(str), st.sampled_from(["good", "Ada"])),
    ),
)  # fmt: skip
def test_no_form_ends_in_an_error_of_the_servers(client: TestClient, path: str, form: dict[str, str]) -> None:
    sent_form = {k: v.encode("utf-8", "replace").decode() for k, v in form.items()}
    assert client.post(path, data=sent_form).status_code < 500


BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_an_address_that_is_none_is_said_in_a_page_to_a_browser(client: TestClient) -> None:
    for path in ("/nowhere", f"/{HOSTILE}", "/v1/nowhere", "/history/1/image.gif"):
        answer = client.get(path, headers=BROWSER)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "<h1>Not here</h1>" in answer.text
        assert "alert(1)" not in answer.text
        assert "'self'" in answer.headers["content-security-policy"]
        program = client.get(path)
        assert (program.status_code, program.json()["error"]["code"]) == (404, "not_found")
    reloaded = client.get("/improve/propose", headers=BROWSER)
    assert (reloaded.status_code, reloaded.headers["allow"]) == (405, "POST")
    assert "<h1>This cannot be done</h1>" in reloaded.text
    assert client.get("/v1/entries/9", headers=BROWSER).json()["error"]["code"] == "not_found"  # a program's answer
    for path in ("/history/one", "/history?before=one"):
        wrong = client.get(path, headers=BROWSER)
        assert wrong.status_code == 422
        assert "<h1>This cannot be done</h1>" in wrong.text


def test_with_tokens_one_logs_in(station: Station) -> None:
    app = create_app(station, tokens=Tokens([TOKEN]))
    with TestClient(app, follow_redirects=False) as client:
        answer = client.get("/history", headers={"accept": "text/html"})
        assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/login")
        assert client.get("/latest").status_code == 401
        login = client.get("/login")
        assert login.status_code == 200
        assert 'type="password"' in login.text
        assert client.get("/static/station.css").status_code == 200
        refused = client.post("/login", data={"token": "wrong-wrong-wrong-wrong"})
        assert 'aria-invalid="true"' in client.get(refused.headers["location"]).text
        assert client.post("/login", data={"token": TOKEN}).status_code == 303
        page = client.get("/history")
        assert page.status_code == 200
        assert "Log out" in page.text
        client.post("/logout")
        assert client.get("/history").status_code == 401


def test_another_sites_page_changes_nothing(client: TestClient, station: Station) -> None:
    first = sent(station, 100, defect=True)
    form = {"word": "good", "who": "Eve"}
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert client.post(f"/history/{first}/review", data=form, headers=headers).status_code == 403
    assert station.journal.entry(first).review is None

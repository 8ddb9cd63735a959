"""The service, by real requests to a real server: answers, errors, limits, tokens, and clients that do not behave."""

from __future__ import annotations

import base64
import csv
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from andon.core import ConfigError
from andon.inspection import Inspector, Limits, Station
from andon.inspection.overlay import overlay_image
from andon.inspection.station import _guard, _protocol
from andon.inspection.station._auth import Tokens
from andon.inspection.station._guard import TokenBucket, is_loopback, local_hosts
from andon.inspection.station.running import _listener
from tests.inspection.parts import part
from tests.inspection.station.serving import TOKEN, image_bytes, served
from tests.inspection.station.test_station import Gate, until

BAD = image_bytes(51, defect=True)
GOOD = image_bytes(50)


@pytest.fixture(scope="module")
def station(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    made = Station(
        {"seal": inspector, "cap": inspector},
        tmp_path_factory.mktemp("station"),
        limits=Limits(max_bytes=200_000, max_pixels=20_000, max_batch=4),
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(station: Station) -> Iterator[str]:
    with served(station, hosts=local_hosts(["andon.plant"])) as url:
        yield url


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


def refused(answer: httpx.Response, status: int, code: str, words: str = "") -> None:
    """An error as every error is: JSON of one form, in one line, with nothing of the machine."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    assert words in body["error"]["message"]
    assert "Traceback" not in answer.text
    assert "\n" not in body["error"]["message"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1


# Verdicts


@pytest.mark.parametrize("way", ["form", "body", "path"])
def test_a_verdict(client: httpx.Client, station: Station, inspector: Inspector, way: str) -> None:
    if way == "form":
        answer = client.post("/v1/inspect?inspector=seal", files={"file": ("a.png", BAD)})
    elif way == "body":
        answer = client.post(
            "/v1/inspect?inspector=seal&name=a.png", content=BAD, headers={"Content-Type": "image/png"}
        )
    else:
        answer = client.post("/v1/inspectors/seal/inspect?name=a.png", content=BAD)
    assert answer.status_code == 200, answer.text
    found, alone = answer.json(), inspector.inspect(part(51, defect=True))
    assert found["verdict"] == alone.verdict == "stop"
    assert (found["score"], found["p_value"], found["area"]) == (alone.score, alone.p_value, alone.area)
    assert found["thresholds"] == {"look": inspector.thresholds.look, "stop": inspector.thresholds.stop}
    assert found["regions"] == [box._asdict() for box in alone.boxes]
    assert found["promise"] == list(inspector.promise())
    assert (found["name"], found["width"], found["height"], found["inspector"]) == ("a.png", 96, 72, "seal")
    assert found["milliseconds"] > 0
    assert found["heat_map"] is None
    entry = station.journal.entry(found["id"])
    assert (entry.verdict, entry.score) == ("stop", alone.score)
    again = client.get(f"/v1/entries/{found['id']}").json()
    assert {k: v for k, v in found.items() if k not in ("promise", "heat_map")} == again


def test_the_heat_map_is_the_overlay(client: httpx.Client, inspector: Inspector) -> None:
    expected = overlay_image(inspector, inspector.inspect(part(51, defect=True)), part(51, defect=True))
    in_json = client.post("/v1/inspectors/seal/inspect?heat_map=png", content=BAD).json()
    as_image = client.post("/v1/inspectors/seal/inspect", content=BAD, headers={"Accept": "image/png"})
    later = client.get(f"/v1/entries/{in_json['id']}/heat-map")
    assert as_image.headers["content-type"] == later.headers["content-type"] == "image/png"
    for data in (base64.b64decode(in_json["heat_map"]), as_image.content, later.content):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), expected)
    assert as_image.headers["x-andon-verdict"] == "stop"
    assert float(as_image.headers["x-andon-score"]) == in_json["score"]
    assert int(as_image.headers["x-andon-id"]) == in_json["id"] + 1
    assert client.get(f"/v1/entries/{in_json['id']}/image").content == BAD


def test_a_batch_gives_each_image_its_own(client: httpx.Client) -> None:
    files = [
        ("file", ("a.png", GOOD)),
        ("file", ("b.png", b"none")),
        ("file", ("c.png", b"")),
        ("file", ("d.png", BAD)),
    ]
    found = client.post("/v1/batch?inspector=seal&heat_map=png", files=files).json()
    assert found["errors"] == 2
    items = found["items"]
    assert [item["name"] for item in items] == ["a.png", "b.png", "c.png", "d.png"]
    assert [item["result"] and item["result"]["verdict"] for item in items] == ["pass", None, None, "stop"]
    assert items[1]["error"]["code"] == "image_refused"
    assert "b.png" in items[1]["error"]["message"]
    assert items[3]["result"]["heat_map"]
    refused(client.post("/v1/batch?inspector=seal", files=files * 2), 400, "bad_request", "Too many files")
    refused(client.post("/v1/batch?inspector=seal", content=GOOD), 415, "unsupported_media_type")
    refused(client.post("/v1/batch?inspector=seal", files={"other": GOOD}), 400, "bad_request", "field named file")


def test_the_inspectors(client: httpx.Client, station: Station) -> None:
    found = client.get("/v1/inspectors").json()["inspectors"]
    assert [i["name"] for i in found] == ["seal", "cap"]
    assert found[0]["model"] == station.served("seal").model
    assert found[0]["calibrated_on"] == 20
    assert found[0]["size"] == [72, 96]
    assert found[0]["drift"]["alarmed"] is False


# What goes wrong


def test_errors_have_one_form(client: httpx.Client) -> None:
    inspect = "/v1/inspectors/seal/inspect"
    refused(client.get("/nowhere"), 404, "not_found")
    refused(client.get("/docs"), 404, "not_found")
    refused(client.get("/v1/inspect"), 405, "method_not_allowed")
    refused(client.post("/v1/inspect", content=GOOD), 400, "bad_request", "seal, cap")
    refused(client.post("/v1/inspect?inspector=lid", content=GOOD), 404, "not_found", "seal, cap")
    refused(client.post("/v1/inspectors/lid/inspect", content=GOOD), 404, "not_found")
    refused(client.post(inspect, content=b""), 422, "image_refused", "empty")
    refused(client.post(inspect, content=b"no image"), 422, "image_refused", "not an image of a known kind")
    refused(client.post(inspect, content=GOOD[:200]), 422, "image_refused", "damaged or truncated")
    refused(client.post(inspect, json={}), 415, "unsupported_media_type", "multipart/form-data")
    refused(client.post(inspect, files={"other": GOOD}), 400, "bad_request", "field named file")
    refused(client.post(inspect, data={"file": "text"}, files={"x": b""}), 400, "bad_request")
    refused(client.post(inspect + "?heat_map=gif", content=GOOD), 422, "invalid", "heat_map")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(client.post(inspect, content=b"--y\r\n", headers=broken), 400, "bad_request")
    refused(client.post(inspect, content=b"", headers={"Content-Type": "multipart/form-data"}), 400, "bad_request")


def test_an_image_of_another_shape(client: httpx.Client) -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((72, 72, 3), np.uint8)).save(out, "PNG")
    refused(
        client.post("/v1/inspectors/seal/inspect?name=w.png", content=out.getvalue()),
        422,
        "image_refused",
        "w.png: is 72 × 72",
    )


def test_too_many_bytes_and_pixels(client: httpx.Client) -> None:
    inspect, large = "/v1/inspectors/seal/inspect", bytes(200_001)
    refused(client.post(inspect, content=large), 413, "too_large", "200,000")
    refused(client.post(inspect, files={"file": large}), 413, "too_large", "200,000")
    refused(client.post(inspect, content=iter([large] * 3)), 413, "too_large")
    refused(client.post("/v1/batch?inspector=seal", files={"file": bytes(1_700_000)}), 413, "too_large")
    item = client.post("/v1/batch?inspector=seal", files=[("file", large), ("file", GOOD)]).json()["items"]
    assert item[0]["error"]["code"] == "too_large"
    assert item[1]["result"]["verdict"] == "pass"
    refused(client.post("/v1/entries/1/review", content=b"{" + b" " * 70_000), 413, "too_large")
    out = io.BytesIO()
    Image.fromarray(np.zeros((150, 200, 3), np.uint8)).save(out, "PNG")
    refused(client.post(inspect, content=out.getvalue()), 422, "image_refused", "200×150 pixels are too many")


def test_a_request_that_is_none(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        told = b"".join(iter(lambda: connection.recv(4096), b""))
    assert told.startswith(b"HTTP/1.1 400")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_a_fault_of_the_servers_own_is_no_traceback(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/place: 'key'")

    monkeypatch.setattr(Inspector, "inspect", broken)
    answer = client.post("/v1/inspectors/seal/inspect", content=GOOD)
    refused(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "RuntimeError" in caplog.text
    monkeypatch.undo()
    assert client.post("/v1/inspectors/seal/inspect", content=GOOD).status_code == 200


def test_a_full_disk_is_503_and_nothing_is_acknowledged(client: httpx.Client, station: Station) -> None:
    db = station.journal._db
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    try:
        answers = [client.post("/v1/inspectors/seal/inspect", content=BAD) for _ in range(60)]
        given = [answer.json()["id"] for answer in answers if answer.status_code == 200]
        refused(answers[-1], 503, "unavailable", "full")
        assert station.journal.entries(limit=1)[0].id == max(given, default=station.journal.entries(limit=1)[0].id)
    finally:
        db.execute("PRAGMA max_page_count = 1000000")
    assert client.post("/v1/inspectors/seal/inspect", content=BAD).status_code == 200


# The journal


def test_entries_reviews_and_labels(client: httpx.Client) -> None:
    ids = [client.post("/v1/inspectors/cap/inspect", content=data).json()["id"] for data in (GOOD, BAD, BAD)]
    page = client.get("/v1/entries?inspector=cap&limit=2").json()
    assert [e["id"] for e in page["entries"]] == ids[:0:-1]
    rest = client.get(f"/v1/entries?inspector=cap&limit=2&before={page['next']}").json()
    assert ([e["id"] for e in rest["entries"]], rest["next"]) == (ids[:1], None)
    said = client.post(f"/v1/entries/{ids[1]}/review", json={"word": "good", "who": "=Ann", "note": "a hair"})
    assert said.status_code == 201
    assert said.json()["word"] == "good"
    shown = client.get("/v1/entries?inspector=cap&reviewed=true&verdict=stop&verdict=look").json()["entries"]
    assert [(e["id"], e["review"]["who"]) for e in shown] == [(ids[1], "=Ann")]
    table = client.get("/v1/labels.csv?inspector=cap")
    assert table.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(table.text))
    assert (row["id"], row["label"], row["verdict"]) == (str(ids[1]), "good", "stop")
    assert row["who"] == "'=Ann", "a spreadsheet must not take a name for a formula"
    assert client.get("/v1/entries?since=1e10").json() == {"entries": [], "next": None}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/entries/999999", None, 404, "not_found"),
        ("GET", "/v1/entries/0", None, 422, "invalid"),
        ("GET", "/v1/entries/x", None, 422, "invalid"),
        ("GET", f"/v1/entries/{10**30}", None, 422, "invalid"),
        ("GET", "/v1/entries/999999/image", None, 404, "not_found"),
        ("GET", "/v1/entries/999999/heat-map", None, 404, "not_found"),
        ("GET", "/v1/entries?limit=0", None, 422, "invalid"),
        ("GET", "/v1/entries?limit=100000", None, 422, "invalid"),
        ("GET", "/v1/entries?verdict=fine", None, 422, "invalid"),
        ("GET", "/v1/entries?since=nan", None, 422, "invalid"),
        ("POST", "/v1/entries/999999/review", {"word": "good", "who": "Ann"}, 404, "not_found"),
        ("POST", "/v1/entries/1/review", {"word": "fine", "who": "Ann"}, 422, "invalid"),
        ("POST", "/v1/entries/1/review", {"word": "good", "who": ""}, 422, "invalid"),
        ("POST", "/v1/entries/1/review", {"word": "good", "who": "Ann", "x": 1}, 422, "invalid"),
        ("POST", "/v1/entries/1/review", [], 422, "invalid"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_do(
    client: httpx.Client, method: str, path: str, body: Any, status: int, code: str
) -> None:
    refused(client.request(method, path, json=body), status, code)


# The state


def test_health_figures_and_the_description(client: httpx.Client, station: Station) -> None:
    client.post("/v1/inspectors/cap/inspect", content=BAD)
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "inspectors": ["seal", "cap"]}
    figures = client.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain")
    for line in (
        'andon_verdicts_total{inspector="cap",verdict="stop"}',
        'andon_requests_total{method="POST",route="/v1/inspectors/{inspector}/inspect",status="200"}',
        'andon_request_seconds_bucket{le="0.045",route="/v1/inspectors/{inspector}/inspect"}',
        'andon_inspection_seconds_count{inspector="cap"}',
        "andon_queue_waiting 0.0",
        'andon_drift_alarm{inspector="seal"}',
    ):
        assert line in figures.text, line
    description = client.get("/openapi.json").json()
    assert "/v1/inspect" in description["paths"]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (path, method)
            for status, answer in operation["responses"].items():
                for kind, content in answer["content"].items():
                    assert content.get("schema") != {}, (path, method, status, kind)
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("ErrorAnswer")
    assert set(description["paths"]["/v1/inspect"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data", "application/octet-stream", "image/*",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/", "/history", "/thresholds", "/drift", "/improve", "/login", "/static/station.css", "/healthz", "/readyz"],
)
def test_a_head_is_a_get_without_its_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert int(head.headers["content-length"]) == len(get.content) > 0
    assert client.get(path).status_code == 200  # on the same connection: nothing of a body was left over


def test_a_head_of_what_there_is_not(client: httpx.Client) -> None:
    for path, status in (("/nowhere", 404), ("/history/999999", 404), ("/v1/inspect", 405)):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")


def test_two_services_in_one_process_count_apart(inspector: Inspector, tmp_path: Path) -> None:
    other = Station({"seal": inspector}, tmp_path)
    with served(other) as url:
        assert 'verdict="stop"' not in httpx.get(f"{url}/metrics").text
    other.close()


def test_not_ready_while_it_shuts_down(inspector: Inspector, tmp_path: Path) -> None:
    other = Station({"seal": inspector}, tmp_path)
    with served(other) as url:
        other.drain()
        refused(httpx.get(f"{url}/readyz"), 503, "not_ready", "shutting down")
        refused(httpx.post(f"{url}/v1/inspect", content=GOOD), 503, "busy", "shutting down")
        assert httpx.get(f"{url}/healthz").status_code == 200
    other.close()


# Who may come in


def test_tokens(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path)
    with served(station, tokens=Tokens([TOKEN, "another-token-as-long"])) as url:
        client = httpx.Client(base_url=url)
        for path in ("/v1/inspectors", "/metrics", "/v1/entries", "/openapi.json", "/nowhere"):
            answer = client.get(path)
            refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        refused(client.post("/v1/inspect", content=GOOD), 401, "unauthorized")
        for wrong in (f" {TOKEN[:-1]}", f" {TOKEN}x", "", " " + "é" * 16):
            bad = {"Authorization": b"Bearer" + wrong.encode("latin-1")}
            refused(client.get("/v1/inspectors", headers=bad), 401, "unauthorized")
        refused(client.get("/v1/inspectors", headers={"Authorization": f"Basic {TOKEN}"}), 401, "unauthorized")
        assert client.get("/v1/inspectors", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert station.journal.entries() == []
    station.close()


def test_the_pages_session(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path)
    with served(station, tokens=Tokens([TOKEN])) as url, httpx.Client(base_url=url) as client:
        sent = client.get("/", headers={"Accept": "text/html"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/login")
        assert client.get("/login").status_code == 200
        wrong = client.post("/login", data={"token": "wrong"})
        assert (wrong.status_code, wrong.headers["location"]) == (303, "/login?failed=1")
        assert not client.cookies
        for place, where in (("/history", "/history"), ("//evil.com", "/"), ("/\\evil.com", "/"), ("http://x", "/")):
            answer = client.post("/login", data={"token": TOKEN, "next": place})
            assert (answer.status_code, answer.headers["location"]) == (303, where)
        kind = answer.headers["set-cookie"].lower()
        assert "httponly" in kind
        assert "samesite=strict" in kind
        assert TOKEN not in kind
        assert client.get("/v1/inspectors").status_code == 200
        same, other = {"Origin": url}, {"Origin": "http://evil.com"}
        assert client.post("/v1/inspect", content=GOOD, headers=same).status_code == 200
        refused(client.post("/v1/inspect", content=GOOD, headers=other), 403, "other_origin")
        refused(client.post("/v1/inspect", content=GOOD, headers={"Origin": "null"}), 403, "other_origin")
        refused(client.post("/v1/inspect", content=GOOD, headers={"Sec-Fetch-Site": "cross-site"}), 403, "other_origin")
        client.post("/logout")
        refused(client.get("/v1/inspectors"), 401, "unauthorized")
        for _ in range(8):
            last = client.post("/login", data={"token": "wrong"})
        refused(last, 429, "too_many_requests", "attempts")
    station.close()


def test_a_sessions_cookie_ends_and_cannot_be_made() -> None:
    tokens, token = Tokens([TOKEN]), TOKEN.encode()
    cookie = tokens.session(token, now=1000)
    assert tokens.holds(cookie, now=1001)
    assert not tokens.holds(cookie, now=1000 + 13 * 3600)
    until_, _, signature = cookie.partition(".")
    for forged in (f"{int(until_) + 9}.{signature}", f"{until_}.", ".", "", "x.y", f"{until_}.{signature}0"):
        assert not tokens.holds(forged, now=1001)
    assert not Tokens(["another-token-as-long"]).holds(cookie, now=1001)
    assert tokens.accepts(token)
    assert not Tokens().accepts(token)


def test_files_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who\n{TOKEN}  # Ann\n\nanother-token-as-long\n")
    tokens = Tokens.of(path, "a-third-token-of-16, a-fourth-token-of-16")
    assert all(
        tokens.accepts(t.encode())
        for t in (TOKEN, "another-token-as-long", "a-third-token-of-16", "a-fourth-token-of-16")
    )
    assert not tokens.accepts(b"# who")
    assert not Tokens.of(None, None)
    for content, why in (
        ("# none\n", "holds no token"),
        ("short\n", "at least 16"),
        ("sixteen chars or more\n", "spaces"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match=why):
            Tokens.of(path)
    path.write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(ConfigError, match="no text"):
        Tokens.of(path)
    with pytest.raises(ConfigError, match="no such file"):
        Tokens.of(tmp_path / "none")


def test_other_host_names_are_refused(client: httpx.Client) -> None:
    for host in ("evil.com", "evil.com:8000", "127.0.0.1.evil.com", "", "[::2]"):
        refused(client.get("/healthz", headers={"Host": host}), 400, "wrong_host")
    for host in ("localhost:99", "127.0.0.1", "[::1]:8000", "LOCALHOST", "andon.plant"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "192.168.0.1", "station")] == [False] * 4


def test_every_answer_has_the_security_headers(client: httpx.Client) -> None:
    for path in ("/", "/healthz", "/nowhere", "/static/station.css"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_the_rate_of_a_client(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path, limits=Limits(rate=0.5))
    with served(station) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        refused(httpx.get(f"{url}/healthz"), 429, "too_many_requests")
    station.close()


def test_a_token_bucket_by_its_clock() -> None:
    now = 0.0
    bucket = TokenBucket(2.0, 3.0, lambda: now)
    assert [bucket.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take("b")
    now = 0.5
    assert [bucket.take("a") for _ in range(2)] == [True, False]
    now = 100.0
    assert [bucket.take("a") for _ in range(4)] == [True, True, True, False]
    for number in range(20_000):
        bucket.take(str(number))
    assert len(bucket._left) == 10_000


# Clients that do not behave, and load


def _connection(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


HEAD = b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


def test_a_client_that_sends_too_slowly_is_let_go(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_protocol, "HEADER_SECONDS", 0.4)
    station = Station({"seal": inspector}, tmp_path, limits=Limits(timeout=0.6))
    with served(station) as url:
        silent, dribbling, slow = _connection(url), _connection(url), _connection(url)
        slow.sendall(HEAD % len(GOOD) + GOOD[:100])
        started = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\nHost: local":
            try:
                dribbling.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.05)
        assert silent.recv(100) == b""
        assert time.monotonic() - started < 5
        told = b""
        while part := slow.recv(65536):  # head and body may come apart
            told += part
        assert told.startswith(b"HTTP/1.1 408")
        assert b"body_too_slow" in told
        with pytest.raises(OSError):  # noqa: PT011 (any of them)
            [dribbling.sendall(b"x") or time.sleep(0.05) for _ in range(50)]
        assert httpx.post(f"{url}/v1/inspect", content=GOOD).status_code == 200
        for each in (silent, dribbling, slow):
            each.close()
    station.close()


def test_more_connections_than_there_is_room_for(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_protocol, "MOST_CONNECTIONS", 5)
    station = Station({"seal": inspector}, tmp_path)
    with served(station) as url:
        held = [_connection(url) for _ in range(5)]
        time.sleep(0.1)
        with _connection(url) as sixth:
            assert sixth.recv(10) == b""
        held.pop().close()
        until(lambda: _answers(url))
        for each in held:
            each.close()
    station.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_client_that_goes_away_costs_nothing(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    station = Station({"seal": inspector}, tmp_path)
    gate = Gate(monkeypatch)
    with served(station) as url:
        # In the middle of the body; in the middle of the wait, in the model and before it.
        with _connection(url) as one:
            one.sendall(HEAD % len(GOOD) + GOOD[:100])
        with _connection(url) as two:
            two.sendall(HEAD % len(GOOD) + GOOD)
            assert gate.reached.wait(10)
            with _connection(url) as three:
                three.sendall(HEAD % len(GOOD) + GOOD)
                until(lambda: station.waiting == 1)
        until(lambda: station._admitted == 0)
        gate.open.set()
        assert httpx.post(f"{url}/v1/inspect?name=last", content=GOOD, timeout=20).status_code == 200
        assert [e.name for e in station.journal.entries()] == ["last"]
    assert "Traceback" not in caplog.text
    station.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_answers_do_not_wait_for_acknowledgements(host: str) -> None:
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it an answer takes 40 ms more.
    listener = _listener(host, 0)
    assert listener.proto == socket.IPPROTO_TCP
    listener.close()


def test_too_late_and_too_many(inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station({"seal": inspector}, tmp_path, limits=Limits(queue=1, timeout=1.0))
    gate = Gate(monkeypatch)
    with served(station) as url, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(httpx.post, f"{url}/v1/inspect", content=GOOD, timeout=20) for _ in range(2)]
        until(lambda: station._admitted == 2)
        refused(httpx.post(f"{url}/v1/inspect", content=GOOD), 503, "busy", "queue is full")
        refused(httpx.get(f"{url}/readyz"), 503, "not_ready", "queue is full")
        for answer in waiting:
            refused(answer.result(), 503, "busy", "no verdict within 1 s")
        gate.open.set()
        assert httpx.post(f"{url}/v1/inspect", content=GOOD, timeout=20).status_code == 200
        assert len(station.journal.entries()) == 1
    station.close()


def test_what_is_being_sent_is_bounded_in_all(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intakes: list[_guard.Intake] = []
    init = _guard.Intake.__init__

    def small(intake: _guard.Intake, *arguments: Any, **options: Any) -> None:
        init(intake, *arguments, **{**options, "in_all": 300_000})
        intakes.append(intake)

    monkeypatch.setattr(_guard.Intake, "__init__", small)
    station = Station({"seal": inspector}, tmp_path)
    with served(station) as url:
        with _connection(url) as one:
            one.sendall(HEAD % 400_000 + bytes(250_000))
            until(lambda: bool(intakes) and intakes[0].held >= 250_000)
            refused(httpx.post(f"{url}/v1/inspect", content=bytes(100_000)), 503, "busy", "too much")
        until(lambda: intakes[0].held == 0)
        assert httpx.post(f"{url}/v1/inspect", content=GOOD).status_code == 200
    station.close()


def test_many_clients_good_and_bad_at_once(client: httpx.Client, station: Station, address: str) -> None:
    before = len(station.journal.entries(limit=1000))
    kinds = [GOOD, BAD, b"no image", GOOD[:300]]
    expected = [200, 200, 422, 422]
    answers: list[tuple[int, httpx.Response]] = []

    def work(number: int) -> None:
        with httpx.Client(base_url=address, timeout=30) as own:
            for k in range(10):
                kind = (number + k) % 4
                answers.append((expected[kind], own.post("/v1/inspectors/seal/inspect", content=kinds[kind])))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 80
    assert all(answer.status_code == status for status, answer in answers)
    ids = [answer.json()["id"] for status, answer in answers if status == 200]
    assert len(set(ids)) == len(ids) == 40
    assert len(station.journal.entries(limit=1000)) == before + 40

"""Damaged uploads and parameters against a real station over real sockets: answered or refused, nothing else.

    python -m tests.fuzz.fuzz_station [--inputs 20000] [--seed 0] [--write docs/reliability.md]

Every input is a request: images of all kinds damaged and sent as a body or a form, forms that are damaged themselves,
parameters, paths and JSON made of what a program must not trip over, headers that lie, and whole requests with flipped,
cut and doubled bytes. Counted as faults: a traceback (a status 500, or an exception in the log), an error that is not
the service's JSON (or the page's HTML), a path of the machine in an answer, no answer and no closed connection within
10 seconds, more than 256 MB over the process at rest. The exit code is 1 if there is any.
"""

# ruff: noqa: T201 (a script)

from __future__ import annotations

import http.client
import json
import logging
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock
from urllib.parse import quote_from_bytes

import numpy as np

from andon.inspection import Limits, Station, train_inspector
from andon.inspection.station import _protocol
from tests.fuzz.damage import damaged, damaged_text
from tests.fuzz.doors import _images
from tests.fuzz.fuzz_doors import _reset_peak, _status, write
from tests.fuzz.fuzz_inspector import given, one_row
from tests.inspection.parts import part
from tests.inspection.station.serving import image_bytes, served

SECONDS, MEGABYTES = 10, 256
_FAULTS = ("traceback", "no JSON", "path shown", "hang", "over memory")
_BEGIN, _END = "<!-- station fuzz: begin -->", "<!-- station fuzz: end -->"
_KINDS = ("image", "form", "broken form", "parameters", "JSON", "headers", "request")
_PATHS = (
    b"/v1/inspect", b"/v1/inspectors/seal/inspect", b"/v1/batch", b"/v1/inspectors", b"/v1/entries", b"/v1/entries/1",
    b"/v1/entries/1/image", b"/v1/entries/1/heat-map", b"/v1/entries/1/review", b"/v1/labels.csv", b"/healthz",
    b"/readyz", b"/metrics", b"/openapi.json", b"/login", b"/logout", b"/", b"/history", b"/history/1",
    b"/history/1/review", b"/history/1/heat.png", b"/thresholds", b"/drift", b"/drift/reset", b"/improve", b"/latest",
    b"/static/station.css", b"/inspect", b"/labels.csv",
)  # fmt: skip
_NAMES = (
    "inspector", "name", "heat_map", "verdict", "since", "until", "reviewed", "before", "limit", "after", "done",
    "next", "failed", "page",
)  # fmt: skip
_VALUES = (
    b"", b"seal", b"cap", b"png", b"stop", b"0", b"1", b"-1", b"1e999", b"nan", b"inf", b"9" * 30, b"1.5", b"true",
    b"[]", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", "é☃𝔘".encode(), b"../../etc/passwd", b"' OR 1=1 --", b"%", b"%zz",
    b"{{7*7}}", b"<script>", b"\r\nX: y", b"x" * 3000, b"2026-99-99T00:00", b"2026-11-27T10:00",
)  # fmt: skip
_HEADERS = (
    b"Content-Length: 99999999999999999999", b"Content-Length: -1", b"Content-Length: 1\r\nContent-Length: 2",
    b"Content-Length: \xb2", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Encoding: gzip",
    b"Content-Type: multipart/form-data", b"Content-Type: multipart/form-data; boundary=", b"Content-Type: \xff/\xfe",
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 300, b"Content-Type: multipart/form-data; charset=utf-7",
    b"Content-Type: application/json", b"Content-Type: application/x-www-form-urlencoded", b"Content-Type: image/png",
    b"Accept: image/png", b"Accept: text/html", b"Accept: \xff", b"Authorization: Bearer", b"Authorization: \xff\xfe",
    b"Cookie: andon_session=1.2", b"Cookie: \xff=;;=", b"Origin: null", b"Origin: http://localhost", b"Host: evil",
    b"Expect: 100-continue", b"Connection: upgrade\r\nUpgrade: websocket", b"Range: bytes=0-1", b"X-Part: 1",
    b"If-None-Match: *", b"Y: " + b"y" * 70_000, b"Connection: close", b"Sec-Fetch-Site: cross-site",
)  # fmt: skip


@dataclass
class Tally:
    """What became of the inputs."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    peak: float = 0.0
    faults: list[str] = field(default_factory=list)


class Log(logging.Handler):
    """Exceptions that were logged since it was asked last."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or "Traceback" in record.getMessage():
            self.found.append(logging.Formatter().format(record)[-1500:])

    def taken(self) -> str:
        found, self.found = "\n".join(self.found), []
        return found


def _one(rng: np.random.Generator, of: tuple[bytes, ...]) -> bytes:
    return of[int(rng.integers(len(of)))]


def _query(rng: np.random.Generator) -> bytes:
    pairs = []
    for _ in range(int(rng.integers(0, 4))):
        name = _NAMES[int(rng.integers(len(_NAMES)))].encode()
        value = _one(rng, _VALUES)
        pairs.append(name + b"=" + (quote_from_bytes(value).encode() if rng.random() < 0.8 else _visible(value)))
    return b"?" + b"&".join(pairs) if pairs else b""


def _image(rng: np.random.Generator, images: list[bytes]) -> bytes:
    """An image, mostly of the training images' size, mostly damaged."""
    data = images[int(rng.integers(6 if rng.random() < 0.7 else len(images)))]
    return damaged(rng, data) if rng.random() < 0.7 else data


def _visible(value: bytes) -> bytes:
    return bytes(b for b in value if 32 < b < 127)


def _path(rng: np.random.Generator) -> bytes:
    path = _one(rng, _PATHS)
    if rng.random() < 0.4:
        parts = path.split(b"/")
        parts[int(rng.integers(len(parts)))] = quote_from_bytes(_one(rng, _VALUES)).encode()
        path = b"/" + b"/".join(parts).lstrip(b"/")
    return path


def _form(rng: np.random.Generator, images: list[bytes]) -> tuple[bytes, bytes]:
    """(content type, body) of a form with some files and fields."""
    boundary = b"b0undary"
    parts = []
    for _ in range(int(rng.integers(1, 5))):
        name = b"file" if rng.random() < 0.7 else _visible(_one(rng, _VALUES))
        file = b'; filename="' + _one(rng, _VALUES).replace(b"\r\n", b"") + b'"' if rng.random() < 0.8 else b""
        content = _image(rng, images) if rng.random() < 0.7 else _one(rng, _VALUES)
        parts.append(b'Content-Disposition: form-data; name="' + name + b'"' + file + b"\r\n\r\n" + content)
    body = b"".join(b"--" + boundary + b"\r\n" + each + b"\r\n" for each in parts) + b"--" + boundary + b"--\r\n"
    return b"multipart/form-data; boundary=" + boundary, body


def request(rng: np.random.Generator, kind: str, images: list[bytes]) -> bytes:
    """The bytes of one request."""
    method, path, headers, body = b"POST", b"/v1/inspect", [b"Host: localhost"], b""
    if kind == "image":
        path, body = path + (_query(rng) if rng.random() < 0.5 else b""), _image(rng, images)
    elif kind in ("form", "broken form"):
        path = _one(rng, (b"/v1/inspect", b"/v1/batch", b"/v1/inspectors/seal/inspect", b"/inspect"))
        path += _query(rng) if rng.random() < 0.3 else b""
        content_type, body = _form(rng, images)
        headers.append(b"Content-Type: " + content_type)
        body = damaged(rng, body) if kind == "broken form" else body
    elif kind == "JSON":
        path, body = b"/v1/entries/1/review", damaged_text(rng, b'{"word": "good", "who": "Ann", "note": "a hair"}')
        headers.append(b"Content-Type: application/json")
    else:
        method = _one(rng, (b"GET", b"POST", b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"X"))
        path = _path(rng) + _query(rng)
        if method not in (b"GET", b"HEAD") and rng.random() < 0.7:
            names = (b"token", b"who", b"word", b"look", b"stop", b"confirmed", b"next", b"note")
            fields = (_one(rng, names) + b"=" + quote_from_bytes(_one(rng, _VALUES)).encode() for _ in range(3))
            body = b"&".join(fields)
            headers.append(b"Content-Type: application/x-www-form-urlencoded")
    length = [b"Content-Length: %d" % len(body)] if body else []
    if kind == "headers":
        headers += [_one(rng, _HEADERS) for _ in range(int(rng.integers(1, 4)))]
        length = length if rng.random() < 0.7 else []
    whole = method + b" " + path + b" HTTP/1.1\r\n" + b"\r\n".join([*headers, *length]) + b"\r\n\r\n" + body
    return damaged(rng, whole) if kind == "request" else whole


def attempt(address: tuple[str, int], data: bytes, hidden: str) -> tuple[str, str]:
    """Outcome of one request and what to say of it."""
    until = time.monotonic() + SECONDS
    with socket.create_connection(address, timeout=SECONDS) as connection:
        try:
            connection.sendall(data)
            answer = http.client.HTTPResponse(connection, method="HEAD" if data.startswith(b"HEAD") else "GET")
            answer.begin()
            status, kind, body = answer.status, answer.getheader("content-type") or "", answer.read()
        except TimeoutError:
            return "hang", f"{data[:300]!r}"
        except (OSError, http.client.HTTPException):
            return ("closed", "") if time.monotonic() < until else ("hang", f"{data[:300]!r}")
    if status == 500 or b"Traceback" in body:
        return "traceback", f"{data[:300]!r}: {body[:300]!r}"
    if hidden.encode() in body:
        return "path shown", f"{data[:300]!r}: {body[:300]!r}"
    if status >= 400 and not data.startswith(b"HEAD") and not _told(kind, body):
        return "no JSON", f"{status} {data[:300]!r}: {body[:300]!r}"
    return ("refused" if 400 <= status < 500 else "unavailable" if status >= 500 else "answered"), ""


def _told(kind: str, body: bytes) -> bool:
    """Whether an error is told as errors are."""
    if kind.startswith("text/html"):
        return body.lstrip().lower().startswith(b"<!doctype html")
    try:
        error = json.loads(body)["error"]
        return set(error) == {"code", "message"} and "\n" not in error["message"]
    except (ValueError, KeyError, TypeError):
        return False


def run(inputs: int, seed: int, folder: Path) -> Tally:
    """Sends all inputs to a station of its own."""
    tally, log = Tally(), Log()
    images = [image_bytes(3, kind=kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")]
    images += [data for _, data in _images()]
    config = {"transform": {"size": [16, 16]}}
    inspector = train_inspector([part(k) for k in range(8)], "thumbnail-nn", config=config)
    limits = Limits(max_bytes=2**20, max_pixels=2**22, timeout=0.5)
    logging.getLogger().addHandler(log)
    hook = threading.excepthook
    threading.excepthook = lambda arguments: log.found.append(f"thread died: {arguments.exc_value!r}")
    station = Station({"seal": inspector}, folder / "station", limits=limits)
    try:
        with (
            mock.patch.object(_protocol, "HEADER_SECONDS", 0.2),
            served(station) as url,
        ):
            host, port = url.removeprefix("http://").split(":")
            for _ in range(3):
                station.inspect(images[0])
            for kind in _KINDS:  # what is imported and cached at first is no input's
                attempt((host, int(port)), request(np.random.default_rng(0), kind, images), str(folder))
            _send_all(tally, log, inputs, seed, (host, int(port)), images, str(folder))
            if station.not_ready():
                tally.faults.append(f"not ready at the end: {station.not_ready()}")
    finally:
        station.close()
        threading.excepthook = hook
        logging.getLogger().removeHandler(log)
    return tally


def _send_all(
    tally: Tally, log: Log, inputs: int, seed: int, address: tuple[str, int], images: list[bytes], hidden: str
) -> None:
    rest = _status("VmRSS")
    for number in range(inputs):
        rng = np.random.default_rng([seed, number])
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        _reset_peak()
        outcome, text = attempt(address, request(rng, kind, images), hidden)
        took = _status("VmHWM") - rest
        tally.peak = max(tally.peak, took)
        logged = log.taken()
        if logged:
            outcome, text = "traceback", logged
        elif took > MEGABYTES:
            outcome, text = "over memory", f"{took:.0f} MB"
        tally.counts[outcome] += 1
        tally.kinds[kind] += 1
        if outcome in _FAULTS:
            tally.faults.append(f"input {number} ({kind}): {outcome}: {text}")


def main() -> int:
    options = given(__doc__)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(options.inputs, options.seed, Path(folder))
    for fault in tally.faults[:20]:
        print(fault)
    columns = ("answered", "refused", "unavailable", "closed", *_FAULTS)
    text = one_row("fuzz_station", columns, tally.counts, tally.peak, options)
    print(f"{text}{dict(tally.kinds)}, {time.monotonic() - started:.0f} s")
    if options.write:
        write(options.write, text, _BEGIN, _END)
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main())

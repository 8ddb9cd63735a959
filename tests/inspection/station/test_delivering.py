"""The outputs on the page, in the API and in the figures: what waits, what was refused and why, and is sent again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from andon.core import StoreError
from andon.inspection import Inspector
from andon.inspection.station.outbox import Message, Outbox, OutputError, QueueLimits
from andon.inspection.station.service import create_app
from andon.inspection.station.station import Station
from tests.inspection.station.serving import image_bytes
from tests.inspection.station.test_pages import HOSTILE, attributes

NAME = "webhook http://mes.plant/andon?<b>"
QUICK = QueueLimits(first_wait=0.001, longest_wait=0.002, tries=2)


class Refusing:
    """Takes nothing until it is told to."""

    def __init__(self, name: str = NAME, words: str = HOSTILE) -> None:
        self.name, self.words, self.takes = name, words, False
        self.got: list[Message] = []

    def send(self, message: Message) -> None:
        if not self.takes:
            raise OutputError(f"{self.name}: answers 400 Bad Request ({self.words})", refused=True)
        self.got.append(message)

    def close(self) -> None:
        return


def wait_for(found: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not found():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def receiver() -> Refusing:
    return Refusing()


@pytest.fixture
def telling(inspector: Inspector, receiver: Refusing, tmp_path: Path) -> Iterator[Station]:
    """A station that has told two verdicts and a review to a receiver that refuses all, and to one that takes them."""
    station, taking = Station({"seal": inspector}, tmp_path / "telling"), Refusing("mqtt broker/line")
    taking.takes = True
    station.outbox = box = Outbox(tmp_path / "outbox.sqlite", [receiver, taking], QUICK)
    for seed in (100, 101):
        station.inspect(image_bytes(seed, defect=True), name=f"line-{seed}.png")
    station.review(1, "good", "Ada")
    wait_for(lambda: len(box.aside(NAME)) == 3 and len(taking.got) == 3)
    yield station
    station.close()


@pytest.fixture
def client(telling: Station) -> Iterator[TestClient]:
    with TestClient(create_app(telling), follow_redirects=False) as client:
        yield client


def test_a_station_without_outputs_says_nothing_of_them(station: Station) -> None:
    with TestClient(create_app(station)) as client:
        assert "Outputs" not in client.get("/").text
        answer = client.get("/outputs")
        assert (answer.status_code, "has no outputs" in answer.text) == (404, True)
        assert client.post("/outputs/send-again", data={"output": "x", "who": "Ada"}).status_code == 404
        assert client.get("/v1/outputs").json() == {"outputs": []}
        refused = client.post("/v1/outputs/x/send-again", json={"who": "Ada"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        assert "andon_outbox_aside{" not in client.get("/metrics").text
    assert station.journal.events("") == []


def test_the_page_shows_what_was_refused_and_escapes_the_reasons(client: TestClient) -> None:
    assert 'href="/outputs?inspector=seal"' in client.get("/history").text
    text = client.get("/outputs").text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert not any(name.startswith("on") or name == "style" for _, name in attributes(text))
    assert unescape(text).count(f"answers 400 Bad Request ({HOSTILE})") == 4  # three messages, and the state
    assert [int(i) for i in re.findall(r'<a href="/history/(\d+)">verdict', text)] == [1, 2]
    assert '<a href="/history/1">review 1</a>' in text
    row = re.findall(r'<td class="num">(\d+)</td>', text)
    assert row[:4] == ["0", "3", "0", "0"]
    assert row[4:8] == ["0", "0", "3", "0"]
    assert "failing" in text
    assert "no error" in text
    assert 'action="/outputs/send-again?inspector=seal"' in text
    assert text.count("Send again") == 1  # nothing of the other one is set aside


def test_what_was_set_aside_is_sent_again_by_whoever_says_who(
    client: TestClient, telling: Station, receiver: Refusing
) -> None:
    for who in ("", "  "):
        assert client.post("/outputs/send-again", data={"output": NAME, "who": who}).status_code == 400
    assert client.post("/outputs/send-again", data={"output": "nobody", "who": "Ada"}).status_code == 404
    assert telling.journal.events("") == []
    receiver.takes = True
    answer = client.post("/outputs/send-again", data={"output": NAME, "who": HOSTILE})
    assert (answer.status_code, answer.headers["location"]) == (303, "/outputs?inspector=seal&done=again")
    wait_for(lambda: len(receiver.got) == 3)
    (event,) = telling.journal.events("")
    assert (event.kind, event.who) == ("output", HOSTILE)
    assert NAME in event.text
    text = client.get(answer.headers["location"]).text
    assert "queued again" in text
    assert "Sent again before" in text
    assert "<script>alert" not in text
    assert "Set aside:" not in text
    again = client.post("/outputs/send-again", data={"output": NAME, "who": "Ada"})
    assert (again.status_code, "nothing is set aside" in again.text) == (400, True)
    assert len(telling.journal.events("")) == 1


def test_the_api_tells_the_same(client: TestClient, telling: Station, receiver: Refusing) -> None:
    refusing, taking = client.get("/v1/outputs").json()["outputs"]
    assert (refusing["name"], refusing["waiting"], refusing["aside"], refusing["sent"]) == (NAME, 0, 3, 0)
    assert refusing["failures"] == 6  # two tries each
    assert refusing["last_sent"] is None
    assert [(m["type"], m["entry"], m["tries"]) for m in refusing["set_aside"]] == [
        ("verdict", 1, 2), ("verdict", 2, 2), ("review", 1, 2)
    ]  # fmt: skip
    assert {m["reason"] for m in refusing["set_aside"]} == {f"answers 400 Bad Request ({HOSTILE})"}
    assert (taking["sent"], taking["aside"], taking["failures"], taking["last_error"]) == (3, 0, 0, "")
    assert taking["last_sent"] is not None
    assert len(client.get("/v1/outputs?limit=1").json()["outputs"][0]["set_aside"]) == 1
    assert client.get("/v1/outputs?limit=1001").status_code == 422

    address = f"/v1/outputs/{quote(NAME, safe='')}/send-again"
    for body in ({}, {"who": ""}, {"who": "Ada", "more": 1}, {"who": "x" * 201}):
        answer = client.post(address, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
    assert client.post("/v1/outputs/nobody/send-again", json={"who": "Ada"}).status_code == 404
    receiver.takes = True
    answer = client.post(address, json={"who": "Ada"})
    assert answer.json() == {"output": NAME, "queued": 3}
    wait_for(lambda: len(receiver.got) == 3)
    assert [event.who for event in telling.journal.events("")] == ["Ada"]
    answer = client.post(address, json={"who": "Ada"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    described = client.get("/openapi.json").json()
    assert {"/v1/outputs", "/v1/outputs/{name}/send-again"} <= set(described["paths"])
    assert "OutputAnswer" in described["components"]["schemas"]


def test_a_reason_is_one_short_printable_line_without_folders(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Refusing("line", "a\nb\x1b[31m\u202e" + "y" * 1000)
    station = Station({"seal": inspector}, tmp_path / "telling")
    station.outbox = box = Outbox(tmp_path / "outbox.sqlite", [receiver], QUICK)
    box.put({"n": 1})
    wait_for(lambda: len(box.aside("line")) == 1)
    with TestClient(create_app(station)) as client:
        (message,) = client.get("/v1/outputs").json()["outputs"][0]["set_aside"]
        assert (message["type"], message["entry"]) == ("message", None)
        assert message["reason"].isprintable()
        assert len(message["reason"]) <= 500
        box._trouble("line", f"{box.path}: the queue to the line cannot be used (disk full)")
        assert str(tmp_path) not in client.get("/outputs").text
        assert str(tmp_path) not in client.get("/v1/outputs").text
    station.close()


def figures(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(andon_outbox_\S+?\{.*\}) (\S+)$", text, re.MULTILINE)}


def test_figures_of_the_outputs(client: TestClient, telling: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(client.get("/metrics").text)
    for output, aside, sent, failing in ((NAME, 3, 0, 1), ("mqtt broker/line", 0, 3, 0)):
        label = f'{{output="{output}"}}'
        assert found[f"andon_outbox_pending{label}"] == 0
        assert found[f"andon_outbox_aside{label}"] == aside
        assert found[f"andon_outbox_sent_total{label}"] == sent
        assert found[f"andon_outbox_dropped_total{label}"] == 0
        assert found[f"andon_outbox_failing{label}"] == failing

    def broken(_: Outbox) -> None:
        raise StoreError("the queue to the line cannot be used")

    monkeypatch.setattr(Outbox, "status", broken)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    failing_ones = {f'andon_outbox_failing{{output="{output}"}}': 1.0 for output in (NAME, "mqtt broker/line")}
    assert figures(answer.text) == failing_ones, "all fail, and no count is made up"
    assert 'andon_drift_alarm{inspector="seal"} 0.0' in answer.text
    assert client.get("/outputs").status_code == 503
    assert client.get("/v1/outputs").json()["error"]["code"] == "unavailable"

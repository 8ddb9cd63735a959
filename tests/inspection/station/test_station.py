"""The station: names, the queue, what is acknowledged, thresholds and models that change."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from andon.core import ConfigError, DataError, DetectorError, StoreError
from andon.inspection import Inspector, InspectorFile, Limits, Retention, Station, Verdict, load_inspector
from andon.inspection.station.errors import BusyError, UnknownError
from andon.inspection.station.outbox import Message, OutputError
from andon.inspection.station.served import model_fingerprint
from tests.inspection.parts import part
from tests.inspection.station.serving import image_bytes


class Receiver:
    """An output that keeps what it got."""

    name = "receiver"

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def send(self, message: Message) -> None:
        self.got.append(message.body)

    def close(self) -> None:
        pass


class Gate:
    """Holds the model until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        inspect = Inspector.inspect

        def held(inspector: Inspector, image: Any) -> Verdict:
            self.reached.set()
            assert self.open.wait(20)
            return inspect(inspector, image)

        monkeypatch.setattr(Inspector, "inspect", held)


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_verdict_is_the_inspectors_own_and_in_the_journal(station: Station, inspector: Inspector) -> None:
    for seed, defect in ((50, False), (51, True)):
        data = image_bytes(seed, defect=defect)
        done = station.inspect(data, name="a.png")
        alone = inspector.inspect(part(seed, defect=defect))
        assert (done.entry.verdict, done.entry.score, done.entry.p_value) == (
            alone.verdict,
            alone.score,
            alone.p_value,
        )
        assert done.entry.regions == alone.boxes
        assert (done.entry.height, done.entry.width) == alone.size
        assert done.entry.digest == hashlib.sha256(data).hexdigest()
        assert (done.entry.look, done.entry.stop) == (inspector.thresholds.look, inspector.thresholds.stop)
        assert station.journal.entry(done.entry.id) == done.entry
        assert station.image(done.entry.id) == data
        np.testing.assert_array_equal(done.image, part(seed, defect=defect))
    assert done.entry.verdict == "stop"
    assert done.entry.has_image


def test_what_cannot_be_inspected_is_said_and_not_in_the_journal(station: Station) -> None:
    with pytest.raises(DataError, match=r"^x\.png: not an image"):
        station.inspect(b"no image", name="x.png")
    with pytest.raises(DataError, match="empty"):
        station.inspect(b"")
    with pytest.raises(UnknownError, match="seal"):
        station.inspect(image_bytes(1), inspector="cap")
    assert station.journal.entries() == []


def test_an_image_of_another_shape_is_named(station: Station) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(out, "PNG")
    with pytest.raises(DataError, match=r"^wide\.png: is 90 × 40 pixels"):
        station.inspect(out.getvalue(), name="wide.png")


def test_too_many_pixels_are_refused_from_the_header(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path, limits=Limits(max_pixels=72 * 96 - 1))
    with pytest.raises(DataError, match="96×72 pixels are too many"):
        station.inspect(image_bytes(1))
    station.close()


def test_several_inspectors_by_name(inspector: Inspector, inspector_file: Path, tmp_path: Path) -> None:
    station = Station({"left": inspector, "right": inspector_file}, tmp_path)
    assert station.names == ("left", "right")
    with pytest.raises(ConfigError, match="left, right"):
        station.inspect(image_bytes(1))
    assert station.inspect(image_bytes(1), inspector="right").entry.inspector == "right"
    assert station.served("left").model == station.served("right").model
    station.close()
    for names, why in (({}, "needs an inspector"), ({"a b": inspector}, "a b"), ({"": inspector}, "name")):
        with pytest.raises(ConfigError, match=why):
            Station(names, tmp_path)
    with pytest.raises(DetectorError, match="no such file"):
        Station({"a": tmp_path / "none.andon"}, tmp_path)


def test_names_from_outside_are_made_plain(station: Station) -> None:
    assert station.inspect(image_bytes(1), name="a\nb\x1b[2J\udcff" + "c" * 500).entry.name.startswith("a�b�[2J�c")
    station.review(1, "good", "An\nn", "no\x00te")
    assert station.journal.entry(1).review.who == "An�n"  # type: ignore[union-attr]


def test_a_folder_is_held_by_one_station(station: Station, inspector: Inspector) -> None:
    with pytest.raises(StoreError, match="in use by another station"):
        Station({"seal": inspector}, station.folder)
    station.close()
    Station({"seal": inspector}, station.folder).close()


def test_the_queue_is_bounded(inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station({"seal": inspector}, tmp_path, limits=Limits(queue=2))
    gate = Gate(monkeypatch)
    first = station.submit(image_bytes(0))
    assert gate.reached.wait(10)
    jobs = [first, *(station.submit(image_bytes(k)) for k in range(1, 4))]
    assert station.waiting == 3
    with pytest.raises(BusyError, match="full"):
        station.submit(image_bytes(9))
    gate.open.set()
    assert sorted(job.future.result(10).entry.id for job in jobs) == [1, 2, 3, 4]
    with station.admitted(), station.admitted(), station.admitted():
        assert station.not_ready() == ("the queue is full; try again later",)
        with pytest.raises(BusyError, match="full"), station.admitted():
            pass
    assert station.not_ready() == ()
    station.close()


def test_what_was_given_up_is_not_in_the_journal(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station({"seal": inspector}, tmp_path, limits=Limits(timeout=0.2))
    gate = Gate(monkeypatch)
    with pytest.raises(BusyError, match=r"no verdict within 0\.2 s"):
        station.inspect(image_bytes(1))
    waiting = station.submit(image_bytes(2))
    assert waiting.give_up()
    kept = station.submit(image_bytes(3))
    gate.open.set()
    done = kept.future.result(10)
    assert not kept.give_up(), "it is written down already"
    assert [e.id for e in station.journal.entries()] == [done.entry.id]
    station.close()


def test_a_full_disk_acknowledges_nothing(station: Station) -> None:
    station.inspect(image_bytes(1))
    db = station.journal._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    noise = image_bytes(2, defect=True)
    with pytest.raises(StoreError, match="cannot be written"):
        [station.inspect(noise) for _ in range(50)]
    held = len(station.journal.entries(limit=1000))
    assert station.monitor().state.n == held, "the monitor saw what the journal has"
    db.execute("PRAGMA max_page_count = 1000000")
    assert station.inspect(noise).entry.id == held + 1


def test_moved_thresholds_are_in_the_file_and_the_journal(inspector_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "seal.andon"
    path.write_bytes(inspector_file.read_bytes())
    station = Station({"seal": path}, tmp_path / "station")
    before = station.served()
    score = station.inspect(image_bytes(51, defect=True)).entry.score
    assert score is not None
    station.move_thresholds("seal", score + 1, score + 2, "Ann")
    assert station.inspect(image_bytes(51, defect=True)).entry.verdict == "pass"
    assert station.served().model == before.model
    assert station.served().monitor is before.monitor
    assert station.served().fingerprint == InspectorFile.read(path).fingerprint != before.fingerprint
    assert load_inspector(path).thresholds.stop == score + 2
    (event,) = station.journal.events("seal")
    assert (event.kind, event.who) == ("thresholds", "Ann")
    with pytest.raises(ConfigError, match="thresholds must be numbers"):
        station.move_thresholds("seal", 2, 1)
    load_inspector(path).with_thresholds(1, 2).save(path)
    with pytest.raises(ConfigError, match="has changed since"):
        station.move_thresholds("seal", 1, 3)
    assert station.inspector().thresholds.stop == score + 2
    station.close()


def test_another_model_takes_the_place_with_a_monitor_of_its_own(station: Station, inspector: Inspector) -> None:
    first = station.inspect(image_bytes(51, defect=True)).entry
    from andon.inspection import train_inspector

    other = train_inspector([part(s) for s in range(30, 45)], "thumbnail-nn", config={"transform": {"size": [16, 16]}})
    station.replace("seal", other, "Ann")
    assert station.monitor().state.n == 0
    second = station.inspect(image_bytes(51, defect=True)).entry
    assert first.model != second.model == model_fingerprint(other.file())
    assert station.look_again(second.id).verdict.score == second.score
    with pytest.raises(UnknownError, match="earlier model"):
        station.look_again(first.id)
    assert [e.kind for e in station.journal.events("seal")] == ["model"]
    with pytest.raises(DetectorError):
        station.replace("seal", "none.andon")
    assert station.served().model == second.model


def test_looking_again_shows_the_thresholds_of_then(station: Station) -> None:
    entry = station.inspect(image_bytes(51, defect=True)).entry
    station.move_thresholds("seal", 1e6, 1e7)
    again = station.look_again(entry.id)
    assert (again.verdict.verdict, again.verdict.score) == ("stop", entry.score)
    assert len(station.journal.entries()) == 1
    with pytest.raises(UnknownError, match="entry 7"):
        station.look_again(7)


def test_monitors_go_on_where_they_were(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path)
    for seed in range(40, 60):
        station.inspect(image_bytes(seed))
    state = station.monitor().state
    station.close()
    station = Station({"seal": inspector}, tmp_path)
    assert station.monitor().state == state
    station.reset_drift("seal", "Ann")
    assert station.monitor().state.n == 0
    station.inspect(image_bytes(61))
    station.close()
    station = Station({"seal": inspector}, tmp_path)
    assert station.monitor().state.n == 1
    station.close()


class Slow(Receiver):
    """Takes its time, or never takes anything."""

    def __init__(self, seconds: float, *, away: bool = False) -> None:
        super().__init__()
        self.seconds, self.away = seconds, away

    def send(self, message: Message) -> None:
        time.sleep(self.seconds)
        if self.away:
            raise OutputError("nobody answers")
        super().send(message)


def test_what_waits_to_be_sent_is_sent_before_the_end_as_far_as_there_is_time(
    inspector: Inspector, tmp_path: Path
) -> None:
    receiver = Slow(0.2)
    station = Station({"seal": inspector}, tmp_path / "here", outputs=[receiver])
    for index in range(4):
        station.inspect(image_bytes(60 + index))
    station.close(20)
    assert len(receiver.got) == 4

    station = Station({"seal": inspector}, tmp_path / "away", outputs=[Slow(0.0, away=True)])
    station.inspect(image_bytes(60))
    began = time.monotonic()
    station.close(0.5)
    assert 0.5 <= time.monotonic() - began < 10
    again = Receiver()
    station = Station({"seal": inspector}, tmp_path / "away", outputs=[again])
    station.close(20)
    assert len(again.got) == 1, "what was not sent waits for the next start"


def test_the_line_is_told_of_verdicts_reviews_and_drift(inspector: Inspector, tmp_path: Path) -> None:
    import json

    receiver = Receiver()
    station = Station({"seal": inspector}, tmp_path, outputs=[receiver])
    defect, sent = image_bytes(51, defect=True), 0
    while not station.monitor().state.alarmed and sent < 300:
        station.inspect(defect)
        sent += 1
    assert 2 < sent < 300, "so many defects in a row are no chance"
    station.inspect(defect)
    station.review(3, "good", "Ann")
    station.close()
    told = [json.loads(body) for body in receiver.got]
    assert [m["id"] for m in told if m["type"] == "verdict"] == list(range(1, sent + 2))
    assert [m["type"] for m in told].count("drift") == 1, "an alarm is told once"
    assert [m["entry"] for m in told if m["type"] == "review"] == [3]


def test_a_review_keeps_the_image_of_a_pass(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path, retention=Retention(pass_share=0))
    data = image_bytes(50)
    entry = station.inspect(data).entry
    assert entry.verdict == "pass"
    assert station.journal.image(entry.id) is None
    station.review(entry.id, "defective", "Ann")
    assert station.journal.image(entry.id) == data
    station.close()


def test_closing_finishes_what_was_queued(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station({"seal": inspector}, tmp_path)
    gate = Gate(monkeypatch)
    jobs = [station.submit(image_bytes(k)) for k in range(3)]
    closing = threading.Thread(target=station.close)
    closing.start()
    until(lambda: station.draining)
    with pytest.raises(BusyError, match="shutting down"), station.admitted():
        pass
    gate.open.set()
    closing.join(20)
    assert [job.future.result(0).entry.id for job in jobs] == [1, 2, 3]
    with pytest.raises(BusyError, match="shutting down"):
        station.submit(image_bytes(1))
    station.close()


def test_several_at_a_time(inspector: Inspector, tmp_path: Path) -> None:
    station = Station({"seal": inspector}, tmp_path, limits=Limits(concurrency=3))
    jobs = [station.submit(image_bytes(seed)) for seed in range(30)]
    entries = [job.future.result(30).entry for job in jobs]
    assert sorted(e.id for e in entries) == list(range(1, 31))
    assert station.monitor().state.n == 30
    for seed, entry in enumerate(entries):
        assert entry.score == pytest.approx(inspector.inspect(part(seed)).score)
    station.close()

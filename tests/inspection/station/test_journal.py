"""The journal: nothing acknowledged is lost or changed; damage, full disks and newer versions."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import ConfigError, StoreError
from andon.inspection import Box
from andon.inspection.station.errors import UnknownError
from andon.inspection.station.journal import LABEL_COLUMNS, Entry, Journal, Retention

DAY = 86400.0


def entry(number: int = 0, verdict: str = "stop", **changed: object) -> Entry:
    made = Entry(
        inspector="seal",
        model="0123456789ab",
        name=f"{number:04d}.png",
        digest=hashlib.sha256(str(number).encode()).hexdigest(),
        verdict=verdict,
        score=float(number),
        p_value=0.5,
        look=1.5,
        stop=2.5,
        regions=(Box(1, 2, 3, 4, 5, 6.5),),
        area=0.25,
        width=96,
        height=72,
        seconds=0.02,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_what_was_appended_is_read_back_and_outlives_a_start(path: Path) -> None:
    journal = Journal(path)
    first = journal.append(entry(1), b"image")
    lost = journal.append(entry(2, "part not found", score=None, p_value=None, reason="nothing like it", regions=()))
    assert (first.id, lost.id) == (1, 2)
    assert abs(first.at - time.time()) < 60
    journal.close()
    journal = Journal(path)
    assert journal.entry(1) == first
    assert first.has_image
    assert journal.image(1) == b"image"
    assert journal.entry(2) == lost
    assert lost.score is None
    assert journal.image(2) is None
    assert journal.append(entry(3)).id == 3
    assert journal.messages == []
    journal.close()


def test_nothing_that_was_written_is_changed_or_deleted(path: Path) -> None:
    journal = Journal(path)
    journal.append(entry(1))
    journal.review(1, "good", "Ann")
    journal.event("seal", "thresholds", "Ann", "moved")
    journal.close()
    with sqlite3.connect(path) as db:
        for table in ("entries", "reviews", "events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(f"UPDATE {table} SET at = 0")
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(f"DELETE FROM {table}")
    db.close()


def test_the_last_review_counts_and_earlier_ones_stay(path: Path) -> None:
    journal = Journal(path)
    journal.append(entry(1), b"1")
    journal.append(entry(2, "pass"))
    journal.review(1, "defective", "Ann")
    last = journal.review(1, "good", "Bob", "a hair")
    journal.review(2, "defective", "Ann", image=b"2")
    assert journal.entry(1).review == last
    assert journal.image(2) == b"2", "a reviewed image that is still at hand is kept"
    labels = list(journal.labels("seal"))
    assert [(row["id"], row["label"], row["who"], row["note"]) for row in labels] == [
        (1, "good", "Bob", "a hair"),
        (2, "defective", "Ann", ""),
    ]
    assert all(tuple(row) == LABEL_COLUMNS for row in labels)
    assert list(journal.labels("other")) == []
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM reviews").fetchone() == (3,)
    db.close()
    with pytest.raises(UnknownError, match="entry 9"):
        journal.review(9, "good", "Ann")
    with pytest.raises(ConfigError, match="good or defective"):
        journal.review(1, "fine", "Ann")  # type: ignore[arg-type]
    journal.close()


def test_what_is_asked_for_is_found_by_indexes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    asked: list[tuple[str, tuple[object, ...]]] = []
    read = journal._read

    def listened(query: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        asked.append((query, values))
        return read(query, values)

    monkeypatch.setattr(journal, "_read", listened)
    journal.entries(reviewed=True)
    journal.entries(reviewed=True, inspector="seal", verdicts=("stop",), before=100)
    journal.entries(since=1000.0)
    journal.entries(until=1000.0, inspector="seal")
    journal.entries(since=1.0, until=1000.0, verdicts=("stop", "look"), reviewed=False)
    journal.entries(inspector="seal", reviewed=False)
    journal.append(entry(1))
    journal.review(1, "good", "Ann")
    list(journal.labels("seal"))
    journal.scores("seal")
    journal.close()
    assert len(asked) >= 9
    with sqlite3.connect(path) as db:
        for query, values in asked:
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            scans = [step for step in plan if step.startswith("SCAN")]
            # Of reviews, which are few; never of all entries.
            assert all(step.startswith("SCAN reviews USING COVERING INDEX") for step in scans), (query, plan)
            timed = "e.at >= ?" in query
            assert not timed or any("_time (" in step and "at>? AND at<?" in step for step in plan), (query, plan)
    db.close()


def test_entries_by_what_they_are_and_page_by_page(path: Path) -> None:
    journal = Journal(path)
    for number in range(1, 21):
        name = "seal" if number % 2 else "cap"
        verdict = ("pass", "look", "stop")[number % 3]
        journal.append(entry(number, verdict, inspector=name, at=1000.0 + number))
    journal.review(4, "good", "Ann")
    every = journal.entries(limit=100)
    assert [e.id for e in every] == list(range(20, 0, -1))
    assert [e.id for e in journal.entries(inspector="cap", verdicts=("stop",))] == [20, 14, 8, 2]
    assert [e.id for e in journal.entries(since=1005, until=1008)] == [7, 6, 5]
    assert [e.id for e in journal.entries(since=1018)] == [20, 19, 18]
    assert [e.id for e in journal.entries(until=1004, limit=2)] == [3, 2]
    assert [e.id for e in journal.entries(inspector="cap", until=1005)] == [4, 2]
    assert [e.id for e in journal.entries(reviewed=True)] == [4]
    assert journal.entries(reviewed=True, inspector="seal") == []
    assert [e.id for e in journal.entries(reviewed=False, inspector="cap", before=7)] == [6, 2]
    assert len(journal.entries(reviewed=False, limit=100)) == 19
    pages, before = [], None
    while page := journal.entries(limit=7, before=before):
        pages += page
        before = page[-1].id
    assert pages == every
    journal.review(4, "defective", "Bob")
    assert [(e.id, e.review and e.review.word) for e in journal.entries(reviewed=True)] == [(4, "defective")]
    assert [p.id for p in journal.scores("seal", limit=3)] == [15, 17, 19]
    assert journal.scores("seal", "another model") == []
    journal.close()


def test_events_the_newest_first(path: Path) -> None:
    journal = Journal(path)
    for number in range(3):
        journal.event("seal", "thresholds", "Ann", f"{number}")
    journal.event("cap", "drift", "Bob", "reset")
    assert [e.text for e in journal.events("seal")] == ["2", "1", "0"]
    assert journal.events()[0].inspector == "cap"
    assert journal.drift_reset("cap") == journal.events("cap")[0].at
    assert journal.drift_reset("seal") == 0
    journal.close()


def test_the_share_of_passes_is_chosen_by_the_image_alone() -> None:
    retention = Retention(pass_share=0.25)
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(4000)]
    kept = [retention.keeps("pass", digest) for digest in digests]
    assert 0.22 < sum(kept) / len(kept) < 0.28
    assert kept == [Retention(pass_share=0.25).keeps("pass", digest) for digest in digests]
    more = Retention(pass_share=0.5)
    assert all(more.keeps("pass", d) for d, k in zip(digests, kept, strict=True) if k), "a larger share keeps them all"
    for word in ("look", "stop", "part not found"):
        assert all(retention.keeps(word, digest) for digest in digests[:50])
    assert not any(Retention(pass_share=0).keeps("pass", digest) for digest in digests)
    assert all(Retention(pass_share=1).keeps("pass", digest) for digest in digests)


def test_images_go_by_age_and_verdicts_stay(path: Path) -> None:
    journal = Journal(path, Retention(pass_share=1, max_days=10))
    now = 100 * DAY
    for number, age in enumerate((20, 11, 9, 0), 1):
        journal.append(entry(number, at=now - age * DAY), b"12345")
    journal.review(1, "good", "Ann")
    gone = journal.prune(now)
    assert gone == (1, 5)
    assert [e.has_image for e in reversed(journal.entries())] == [True, False, True, True], "labels stay"
    assert journal.prune(now) == (0, 0)
    journal.close()


def test_images_go_by_size_passes_first_and_labels_last(path: Path) -> None:
    journal = Journal(path, Retention(pass_share=1, max_days=None, max_bytes=30))
    for number, verdict in enumerate(("stop", "pass", "look", "pass", "stop"), 1):
        journal.append(entry(number, verdict, at=float(number)), bytes(10))
    journal.review(2, "defective", "Ann")
    journal.prune()
    # 20 bytes have to go: the pass without a label, then the oldest of the others.
    assert [e.id for e in journal.entries() if e.has_image] == [5, 3, 2]
    journal.close()
    journal = Journal(path, Retention(max_days=None, max_bytes=0))
    assert journal.prune().images == 3
    assert len(journal.entries()) == 5
    journal.close()


def test_pruning_many_goes_through_all(path: Path) -> None:
    journal = Journal(path, Retention(max_bytes=0))
    for number in range(230):
        journal.append(entry(number), b"1")
    assert journal.prune() == (230, 230)
    journal.close()


def test_an_image_seen_again_is_as_bad_as_the_worst_that_was_said_of_it(path: Path) -> None:
    journal = Journal(path, Retention(pass_share=1, max_days=None, max_bytes=10))
    same = entry(1, "stop", at=1.0)
    journal.append(same, bytes(10))
    journal.append(replace(same, verdict="pass", at=3.0), bytes(10))
    journal.append(entry(2, "pass", at=2.0), bytes(10))
    journal.prune()
    assert [e.has_image for e in reversed(journal.entries())] == [True, True, False]
    journal.close()


def test_a_full_disk_is_said_and_nothing_of_the_entry_is_there(path: Path) -> None:
    journal = Journal(path)
    kept = journal.append(entry(1), b"small")
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
    with pytest.raises(StoreError, match="full"):
        journal.append(entry(2), bytes(2**20))
    assert [e.id for e in journal.entries()] == [kept.id]
    journal._db.execute("PRAGMA max_page_count = 1000000")
    assert journal.append(entry(3), bytes(2**20)).id == 2
    assert journal.messages == []
    journal.close()


@pytest.mark.parametrize("harm", ["head", "pages", "cut", "text", "empty wal"])
def test_a_damaged_journal_is_set_aside(path: Path, harm: str) -> None:
    journal = Journal(path)
    for number in range(1, 200):
        journal.append(entry(number), bytes(3000))
    journal.close()
    data = bytearray(path.read_bytes())
    if harm == "head":
        data[:100] = bytes(100)
    elif harm == "pages":
        for at in range(4096, len(data), 4096):
            data[at : at + 64] = b"\xff" * 64
    elif harm == "cut":
        del data[len(data) // 3 :]
    elif harm == "text":
        data = bytearray(b"this is no database " * 1000)
    path.write_bytes(data)
    if harm == "empty wal":
        Path(f"{path}-wal").write_bytes(b"no log")
    journal = Journal(path)
    added = journal.append(entry(200), b"new")
    if harm == "empty wal":
        assert added.id == 200
    else:
        assert len(journal.messages) == 1
        assert "set aside" in journal.messages[0]
        assert len(list(path.parent.glob("journal.sqlite.damaged-*"))) >= 1
        assert added.id >= 200, "no id is given twice"
    assert journal.entry(added.id).name == added.name
    journal.close()


def test_damage_while_it_runs_begins_a_new_one(path: Path) -> None:
    journal = Journal(path)
    for number in range(1, 100):
        journal.append(entry(number), bytes(3000))
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    journal._db.execute("PRAGMA shrink_memory")
    added = journal.append(entry(100))
    assert added.id > 99
    assert journal.entry(added.id) == added
    assert len(journal.messages) == 1
    journal.close()


def test_a_newer_journal_and_other_files_are_refused(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        Journal(path)
    other = path.with_name("other.sqlite")
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE things (id)")
    db.close()
    before = other.read_bytes()
    with pytest.raises(StoreError, match="another program's"):
        Journal(other)
    assert other.read_bytes() == before
    path.with_name("folder").mkdir()
    with pytest.raises(StoreError, match="folder"):
        Journal(path.with_name("folder"))


def test_many_threads_append_and_read(path: Path) -> None:
    journal = Journal(path)
    ids: list[int] = []

    def work(start: int) -> None:
        for number in range(25):
            ids.append(journal.append(entry(start + number), b"image").id)
            assert journal.entries(limit=5)

    threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(1, 101))
    assert len(journal.entries(limit=1000)) == 100
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.append(entry(1))
    with pytest.raises(StoreError, match="closed"):
        journal.entries()


text = st.text(max_size=30).filter(lambda s: "\0" not in s).map(lambda s: s.encode("utf-8", "replace").decode())
figures = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None)
@given(
    name=text,
    reason=st.none() | text,
    score=st.none() | figures,
    area=st.none() | st.floats(0, 1),
    at=st.floats(1, 1e10),
)
def test_any_entry_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    reason: str | None,
    score: float | None,
    area: float | None,
    at: float,
) -> None:
    journal = Journal(tmp_path_factory.mktemp("j") / "journal.sqlite")
    given_entry = entry(1, name=name, reason=reason, score=score, area=area, at=at)
    added = journal.append(given_entry)
    assert journal.entry(added.id) == added == replace(given_entry, id=added.id)
    journal.close()

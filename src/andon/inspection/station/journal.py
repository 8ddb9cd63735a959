"""The journal: every verdict as it was acknowledged, and who confirmed or overruled it. Nothing in it is changed.

One SQLite file in WAL mode with ``synchronous=FULL``: what ``append`` has returned is on the disk and outlives a killed
process and a power cut. Verdicts, reviews and events are appended and never changed or deleted (the database itself
refuses it); images are kept apart from them and go when the retention says so.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from andon._tools.files import open_regular
from andon._tools.text import first_line
from andon.core import ConfigError, StoreError
from andon.inspection.inspector import Box
from andon.inspection.station._schema import COLUMNS, ENTRIES, SCHEMA, VERSION
from andon.inspection.station.errors import DamagedError, UnknownError
from andon.inspection.station.limits import Retention
from andon.inspection.station.records import (
    LABEL_COLUMNS,
    WORDS,
    Entry,
    Event,
    Pruned,
    Review,
    ScorePoint,
    Word,
)

__all__ = ["LABEL_COLUMNS", "WORDS", "Entry", "Event", "Journal", "Pruned", "Retention", "Review", "ScorePoint", "Word"]

_log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
_AT_ONCE = 100
"""Images that are deleted in one transaction: appending never waits for long."""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY_SECONDS = 10.0
_LOG_BYTES = 2**26
_REVIEWED = "e.id IN (SELECT entry FROM reviews)"
_NOT_REVIEWED = "NOT EXISTS (SELECT 1 FROM reviews WHERE entry = e.id)"


class Journal:
    """A journal in a file. For any thread: one writes at a time, reading waits for nobody.

    Args:
        path: of the file; made where there is none. One that is damaged is set aside under another name, and a new one
            begun; ``messages`` says so.
        retention: which images are kept.

    Raises:
        StoreError: no journal, of a newer version, or one that cannot be written.
    """

    def __init__(self, path: Path, retention: Retention | None = None) -> None:
        self.path, self.retention = path, retention or Retention()
        self.messages: list[str] = []
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._closed = False
        self._open_or_set_aside()

    # Writing

    def append(self, entry: Entry, image: bytes | None = None) -> Entry:
        """Writes down a verdict; returns once it is on the disk.

        Args:
            entry: all but its id, ``has_image`` and ``review``; ``at`` 0 is now.
            image: the image's bytes, kept where the retention says so.

        Returns:
            The entry with its id.

        Raises:
            StoreError: it could not be written (a full disk): nothing of it was.
        """
        entry = replace(entry, at=entry.at or time.time())
        row = [getattr(entry, column) for column in COLUMNS if column != "regions"]
        regions = json.dumps([list(box) for box in entry.regions])
        marks = ", ".join("?" * len(COLUMNS))

        def write(db: sqlite3.Connection) -> Entry:
            cursor = db.execute(f"INSERT INTO entries ({', '.join(COLUMNS)}) VALUES ({marks})", [*row, regions])
            kept = image is not None and self.retention.keeps(entry.verdict, entry.digest)
            if kept:
                _keep(db, entry, cast(bytes, image))
            return replace(entry, id=int(cursor.lastrowid or 0), has_image=kept, review=None)

        return self._write(write, again=True)

    def review(self, entry_id: int, word: Word, who: str, note: str = "", image: bytes | None = None) -> Review:
        """Appends what a person says of an entry; earlier reviews stay, the last one counts.

        Args:
            image: the image's bytes, where they are still at hand: a reviewed image is kept.

        Raises:
            UnknownError: no such entry.
            ConfigError: another word.
            StoreError: it cannot be written.
        """
        if word not in WORDS:
            raise ConfigError(f"review {word!r}: expected {' or '.join(WORDS)}")
        review = Review(entry_id, time.time(), word, who, note)
        entry = self.entry(entry_id)

        def write(db: sqlite3.Connection) -> Review:
            db.execute(
                "INSERT INTO reviews (entry, at, word, who, note) VALUES (?, ?, ?, ?, ?)",
                (review.entry, review.at, review.word, review.who, review.note),
            )
            if image is not None:
                _keep(db, entry, image)
            db.execute("UPDATE images SET reviewed = 1 WHERE digest = ?", (entry.digest,))
            return review

        return self._write(write)

    def event(self, inspector: str, kind: str, who: str, text: str) -> None:
        """Writes down what was done to an inspector."""
        values = (time.time(), inspector, kind, who, text)
        self._write(
            lambda db: db.execute("INSERT INTO events (at, inspector, kind, who, text) VALUES (?, ?, ?, ?, ?)", values)
        )

    def prune(self, now: float | None = None) -> Pruned:
        """Deletes the images that the retention does not keep; verdicts and reviews stay."""
        images = n_bytes = 0
        while True:
            gone = self._write(lambda db: _prune_some(db, self.retention, time.time() if now is None else now))
            images, n_bytes = images + gone.images, n_bytes + gone.n_bytes
            if gone.images < _AT_ONCE:
                break
        if images:
            with self._lock:
                self._db.execute("PRAGMA incremental_vacuum").fetchall()
        return Pruned(images, n_bytes)

    def check_writable(self) -> None:
        """StoreError where nothing can be written at the moment."""
        self._write(lambda db: db.execute("UPDATE pulse SET at = ?", (time.time(),)))

    # Reading

    def entry(self, entry_id: int) -> Entry:
        """One entry; UnknownError where there is none."""
        rows = self._read(f"{ENTRIES} WHERE e.id = ?", (entry_id,))
        if not rows:
            raise UnknownError(f"entry {entry_id}: there is none")
        return _entry(rows[0])

    def entries(
        self,
        *,
        inspector: str | None = None,
        verdicts: Sequence[str] = (),
        since: float | None = None,
        until: float | None = None,
        reviewed: bool | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Entry]:
        """Entries, the newest first.

        Args:
            inspector: of this one only.
            verdicts: with one of these; all where none is given.
            since, until: seconds since the epoch, the first included.
            reviewed: with a review, or without; None for both.
            before: with an id below this one: the next page's.
            limit: most that are given.
        """
        wanted: list[tuple[str, tuple[Any, ...]]] = []
        if inspector is not None:
            wanted.append(("e.inspector = ?", (inspector,)))
        timed = since is not None or until is not None
        if verdicts:  # with +, no index of verdicts is used where there is one of times
            wanted.append((f"{'+' * timed}e.verdict IN ({', '.join('?' * len(verdicts))})", tuple(verdicts)))
        if timed:  # both ends: for one alone SQLite would rather go through all entries than use an index
            ends = (-math.inf if since is None else since, math.inf if until is None else until)
            wanted.append(("e.at >= ? AND e.at < ?", ends))
        if before is not None:
            wanted.append(("e.id < ?", (before,)))
        if reviewed is not None:
            wanted.append((_REVIEWED if reviewed else _NOT_REVIEWED, ()))
        where = f" WHERE {' AND '.join(condition for condition, _ in wanted)}" if wanted else ""
        values = tuple(value for _, given in wanted for value in given)
        # Ids first, by indexes alone: rows are read of those only that are given.
        chosen = f"SELECT e.id FROM entries e{where} ORDER BY e.id DESC LIMIT ?"
        rows = self._read(f"{ENTRIES} WHERE e.id IN ({chosen}) ORDER BY e.id DESC", (*values, limit))
        return [_entry(row) for row in rows]

    def image(self, entry_id: int) -> bytes | None:
        """The bytes of an entry's image, as they were sent; None where they are not kept."""
        found = "SELECT i.data FROM entries e JOIN images i ON i.digest = e.digest WHERE e.id = ?"
        rows = self._read(found, (entry_id,))
        return bytes(rows[0][0]) if rows else None

    def scores(self, inspector: str, model: str | None = None, limit: int | None = None) -> list[ScorePoint]:
        """Scores, the oldest first: all, or the last ``limit``, of one model or of all that bore the name."""
        rows = self._read(
            "SELECT id, at, score, p_value FROM entries WHERE inspector = ? AND (? IS NULL OR model = ?)"
            " AND score IS NOT NULL ORDER BY id DESC LIMIT ?",
            (inspector, model, model, -1 if limit is None else limit),
        )
        return [ScorePoint(*row) for row in reversed(rows)]

    def labels(self, inspector: str | None = None) -> Iterator[dict[str, Any]]:
        """Reviewed entries, the oldest first, as rows of a table; the last review of each."""
        after = 0
        while True:
            reviewed = "SELECT DISTINCT entry FROM reviews WHERE entry > ? ORDER BY entry LIMIT 500"
            ids = [int(row[0]) for row in self._read(reviewed, (after,))]
            if not ids:
                return
            rows = self._read(
                f"{ENTRIES} WHERE e.id IN (SELECT entry FROM reviews WHERE entry > ? AND entry <= ?)"
                " AND (? IS NULL OR e.inspector = ?) ORDER BY e.id",
                (after, ids[-1], inspector, inspector),
            )
            yield from map(_label, map(_entry, rows))
            after = ids[-1]

    def events(self, inspector: str | None = None, limit: int = 50) -> list[Event]:
        """What was done to inspectors, the newest first."""
        rows = self._read(
            "SELECT id, at, inspector, kind, who, text FROM events WHERE ? IS NULL OR inspector = ?"
            " ORDER BY id DESC LIMIT ?",
            (inspector, inspector, limit),
        )
        return [Event(*row) for row in rows]

    def drift_reset(self, inspector: str) -> float:
        """When an inspector's drift monitor began anew last, seconds since the epoch; 0 where it never did."""
        query = "SELECT coalesce(max(at), 0.0) FROM events WHERE inspector = ? AND kind = 'drift'"
        return float(self._read(query, (inspector,))[0][0])

    def close(self) -> None:
        """Ends it; what was acknowledged is on the disk already."""
        with self._lock, self._read_lock:
            if not self._closed:
                self._closed = True
                self._let_go()

    # The database

    def _write(self, change: Callable[[sqlite3.Connection], ResultT], *, again: bool = False) -> ResultT:
        """One transaction, whole or not at all; ``again``: in a new journal, where this one turns out to be damaged."""
        with self._lock:
            if self._closed:
                raise StoreError("the journal is closed")
            try:
                with _transaction(self._db) as db:
                    return change(db)
            except sqlite3.Error as error:
                if _code(error) not in _DAMAGE:
                    raise StoreError(f"the journal cannot be written ({first_line(error)})") from error
                if not again:
                    raise DamagedError("the journal is damaged") from error
                self._set_aside()
            return self._write(change)

    def _read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._read_lock:
            if self._closed:
                raise StoreError("the journal is closed")
            try:
                with closing(self._reader.execute(query, values)) as cursor:
                    return cursor.fetchall()
            except (sqlite3.Error, OverflowError) as error:
                if _code(error) in _DAMAGE:
                    raise DamagedError("the journal is damaged; the next verdict begins a new one") from error
                raise StoreError(f"the journal cannot be read ({first_line(error)})") from error

    def _open_or_set_aside(self) -> None:
        try:
            self._open()
        except DamagedError:
            self._set_aside()

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path.parent}: cannot be made ({error.strerror or error})") from error
        if self.path.exists() or self.path.is_symlink():
            open_regular(self.path, what="a journal", error=StoreError).close()
        try:
            self._db = self._connect()
            try:
                self._set_up()
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            if _code(error) in _DAMAGE:
                raise DamagedError(f"{self.path}: is damaged ({first_line(error)})") from error
            raise StoreError(f"{self.path}: cannot be opened as a journal ({first_line(error)})") from error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _set_up(self) -> None:
        """Makes the tables of a new file; refuses a newer one, and finds damage."""
        db = self._db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreError(f"{self.path}: is of a newer version of Andon ({version}, this one reads {VERSION})")
        if version == 0:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(f"{self.path}: is another program's database, no journal")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        if version == 0:
            with _transaction(db):
                for statement in SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
        _look_through(db)

    def _set_aside(self) -> None:
        """A damaged journal gets another name, and a new one goes on from its last id."""
        with self._lock, self._read_lock:
            last = self._last_id()
            self._let_go()
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
            number = 1
            while aside.exists():
                number += 1
                aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{number}")
            try:
                for end in ("", "-wal", "-shm"):
                    part = Path(f"{self.path}{end}")
                    if part.exists():
                        os.replace(part, f"{aside}{end}")
            except OSError as error:
                raise StoreError(f"{self.path}: is damaged and cannot be set aside ({error.strerror})") from error
            self.messages.append(f"the journal was damaged: it was set aside as {aside.name}, and a new one begun")
            _log.warning(self.messages[-1])
            self._open()
            with _transaction(self._db) as db:
                # So that no id is given twice; where the last one cannot be read, the seconds since 2020 are beyond it.
                db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entries', ?)", (last,))

    def _last_id(self) -> int:
        try:
            with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
                return int(db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()[0])
        except (sqlite3.Error, TypeError):
            return int(time.time()) - 1_577_836_800

    def _let_go(self) -> None:
        for name in ("_reader", "_db"):
            connection = self.__dict__.pop(name, None)
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error:
                    continue  # a damaged one cannot be checkpointed


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _code(error: Exception) -> int:
    """SQLite's primary result code; -1 where it has none."""
    return int(error.sqlite_errorcode) & 0xFF if hasattr(error, "sqlite_errorcode") else -1


def _look_through(db: sqlite3.Connection) -> None:
    """Reads what a start needs to be sound: all tables are there, and the last rows of each can be read."""
    for table in ("entries", "reviews", "events"):
        db.execute(f"SELECT * FROM {table} ORDER BY id DESC LIMIT 100").fetchall()
    db.execute("SELECT digest, size FROM images LIMIT 1").fetchall()


def _keep(db: sqlite3.Connection, entry: Entry, image: bytes) -> None:
    """Keeps an image; one that is there is as old, and as harmless, as what was said of it last and worst."""
    db.execute(
        "INSERT INTO images (digest, at, passed, reviewed, size, data) VALUES (?, ?, ?, 0, ?, ?)"
        " ON CONFLICT (digest) DO UPDATE SET at = max(at, excluded.at), passed = min(passed, excluded.passed)",
        (entry.digest, entry.at, entry.verdict == "pass", len(image), image),
    )


def _prune_some(db: sqlite3.Connection, retention: Retention, now: float) -> Pruned:
    """Deletes the next images that have to go, at most ``_AT_ONCE``."""
    going: list[tuple[str, int]] = []
    if retention.max_days is not None:
        old = "SELECT digest, size FROM images WHERE at < ? AND NOT reviewed ORDER BY at LIMIT ?"
        going = db.execute(old, (now - retention.max_days * 86400, _AT_ONCE)).fetchall()
    if not going and retention.max_bytes is not None:
        (held,) = db.execute("SELECT coalesce(sum(size), 0) FROM images").fetchone()
        order = "SELECT digest, size FROM images ORDER BY reviewed, passed DESC, at LIMIT ?"
        for digest, size in db.execute(order, (_AT_ONCE,)) if held > retention.max_bytes else ():
            going.append((digest, size))
            held -= size
            if held <= retention.max_bytes:
                break
    db.executemany("DELETE FROM images WHERE digest = ?", [(digest,) for digest, _ in going])
    return Pruned(len(going), sum(size for _, size in going))


def _entry(row: Sequence[Any]) -> Entry:
    entry_id, has_image, review_at, word, who, note, *values = row
    given = dict(zip(COLUMNS, values, strict=True))
    given["regions"] = tuple(Box(*box) for box in json.loads(given["regions"]))
    review = None if word is None else Review(entry_id, review_at, word, who, note)
    return Entry(**given, id=entry_id, has_image=bool(has_image), review=review)


def _label(entry: Entry) -> dict[str, Any]:
    review = entry.review
    assert review is not None
    said = {"label": review.word, "who": review.who, "reviewed_at": review.at, "note": review.note}
    return {name: said[name] if name in said else getattr(entry, name) for name in LABEL_COLUMNS}

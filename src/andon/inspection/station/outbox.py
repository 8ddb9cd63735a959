"""What the station has to tell the line, on the disk until the receiver has it.

One SQLite file in WAL mode. ``put`` returns when a message is on the disk (``synchronous=FULL``); one thread an output
sends them in order and takes each away once its receiver has acknowledged it. So a message arrives at least once: after
a lost acknowledgement or a killed process it is sent again, the same bytes with the same ``message_id``.

While a receiver is away its messages wait; the others' do not. What a receiver *refuses* does not hold up the line:
after some tries it is set aside with the reason, to be looked at and sent again.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from andon._tools.text import first_line
from andon.core import AndonError, ConfigError, StoreError

__all__ = ["Aside", "Message", "Outbox", "Output", "OutputError", "OutputStatus", "QueueLimits"]

_log = logging.getLogger(__name__)
_VERSION = 1
_SCHEMA = """
CREATE TABLE box (id TEXT NOT NULL);
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE waiting (output TEXT, message INTEGER, PRIMARY KEY (output, message)) WITHOUT ROWID;
CREATE INDEX waiting_message ON waiting (message);
CREATE TABLE aside (
    output TEXT, message INTEGER, tries INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (output, message)
) WITHOUT ROWID;
CREATE INDEX aside_message ON aside (message);
CREATE TABLE counts (output TEXT PRIMARY KEY, sent INTEGER NOT NULL, dropped INTEGER NOT NULL) WITHOUT ROWID;
"""
_CLEAN = """
DELETE FROM messages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM waiting WHERE message = ?1)
AND NOT EXISTS (SELECT 1 FROM aside WHERE message = ?1)
"""


class OutputError(AndonError):
    """A message that was not delivered.

    Attributes:
        refused: the receiver says that it will never take this message as it is.
        after: seconds after which it asks to be tried again; None where it does not say.
    """

    def __init__(self, message: str, *, refused: bool = False, after: float | None = None) -> None:
        super().__init__(message)
        self.refused, self.after = refused, after


@dataclass(frozen=True)
class Message:
    """What is sent.

    Attributes:
        id: of the message; the same when it is sent again, never of another one.
        body: UTF-8 JSON, an object whose ``message_id`` is ``id``.
    """

    id: str
    body: bytes


class Output(Protocol):
    """A receiver at the line. ``send`` is called by one thread alone."""

    @property
    def name(self) -> str:
        """Of its queue: messages of a name that went away wait for an output of that name."""

    def send(self, message: Message) -> None:
        """Returns when the receiver has acknowledged the message.

        Raises:
            OutputError: it did not.
        """

    def close(self) -> None:
        """Ends connections."""


@dataclass(frozen=True)
class QueueLimits:
    """How an output's queue is kept.

    Attributes:
        messages: that wait at most; beyond it the *oldest* are dropped, as the line needs the newest, and counted.
        max_days: age at which a message that waits or was set aside is dropped, and counted.
        aside: messages set aside at most; beyond it the oldest are dropped, and counted.
        tries: of a message that the receiver refuses, before it is set aside.
        first_wait, longest_wait: seconds between two tries: doubled from the first to the longest, up to a quarter less
            at random.
    """

    messages: int = 100_000
    max_days: float = 7.0
    aside: int = 1_000
    tries: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0


@dataclass(frozen=True)
class OutputStatus:
    """How an output fares.

    Attributes:
        name: of the output.
        waiting, aside: messages that are still to be sent, and that were set aside.
        sent, dropped: messages since the queue was made: acknowledged, and given up for number or age.
        failures: in a row, since the last message that arrived.
        last_error: what was wrong last; "" where nothing is.
        last_sent: when a message arrived last, seconds since the epoch; None where none has since the start.
    """

    name: str
    waiting: int
    aside: int
    sent: int
    dropped: int
    failures: int = 0
    last_error: str = ""
    last_sent: float | None = None


@dataclass(frozen=True)
class Aside:
    """A message that its receiver refused.

    Attributes:
        message: what was to be sent.
        at: when it was put, seconds since the epoch.
        tries: made.
        reason: the receiver's last answer.
    """

    message: Message
    at: float
    tries: int
    reason: str


class Outbox:
    """A queue on the disk and a thread for each output.

    Args:
        path: the SQLite file; made where there is none.
        outputs: receivers, of different names.
        limits: how queues are kept.

    Raises:
        ConfigError: two outputs of the same name.
        StoreError: the file cannot be written, or is none of an outbox.
    """

    def __init__(self, path: Path, outputs: Sequence[Output], limits: QueueLimits = QueueLimits()) -> None:
        names = [output.name for output in outputs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two outputs are {twice}: give it once")
        self.path, self._outputs, self.limits = path, tuple(outputs), limits
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._news = {name: threading.Event() for name in names}
        self._troubles: dict[str, tuple[int, str, float | None]] = dict.fromkeys(names, (0, "", None))
        self._counts = Counter[str]()
        with self._errors():
            self._database = _opened(path)
            self._box = str(self._database.execute("SELECT id FROM box").fetchone()[0])
            self._ready(names)
        self._threads = [
            threading.Thread(target=self._serve, args=(output,), name=f"outbox {output.name}", daemon=True)
            for output in outputs
        ]
        for thread in self._threads:
            thread.start()

    def put(self, message: Mapping[str, Any]) -> str:
        """Queues a message for every output; it is on the disk on return. Its id.

        Args:
            message: of what JSON has, without NaN; ``message_id`` is added.

        Raises:
            StoreError: it cannot be written (the disk is full): nothing was queued.
            ValueError: not JSON, or after ``close``.
        """
        if self._stop.is_set():
            raise ValueError("the outbox is closed")
        with self._writing(durable=True):
            row = self._database.execute("INSERT INTO messages (at, body) VALUES (?, '')", (time.time(),)).lastrowid
            id_ = f"{self._box}-{row}"
            named = {"message_id": id_} | dict(message) | {"message_id": id_}  # first, and nobody's but ours
            body = json.dumps(named, ensure_ascii=False, allow_nan=False).encode()
            if not self._outputs:
                self._database.execute("DELETE FROM messages WHERE id = ?", (row,))
                return id_
            self._database.execute("UPDATE messages SET body = ? WHERE id = ?", (body, row))
            for name in self._news:
                self._database.execute("INSERT INTO waiting VALUES (?, ?)", (name, row))
                self._counts[name] += 1
                if self._counts[name] > self.limits.messages:
                    self._drop(name, "SELECT message FROM waiting WHERE output = ? ORDER BY message LIMIT 1", (name,))
        for news in self._news.values():
            news.set()
        return id_

    def pending(self) -> dict[str, int]:
        """Messages that wait, by output."""
        with self._lock:
            return dict(self._counts)

    def status(self) -> tuple[OutputStatus, ...]:
        """How each output fares."""
        with self._lock, self._errors():
            return tuple(self._status(name) for name in self._news)

    def aside(self, name: str, limit: int = -1) -> list[Aside]:
        """Messages of an output that were set aside, the oldest first: all, or the first ``limit``."""
        query = (
            "SELECT m.id, m.body, m.at, a.tries, a.reason FROM aside a JOIN messages m ON m.id = a.message "
            "WHERE a.output = ? ORDER BY m.id LIMIT ?"
        )
        with self._lock, self._errors():
            rows = self._database.execute(query, (name, limit)).fetchall()
        return [Aside(Message(f"{self._box}-{row}", bytes(body)), at, tries, why) for row, body, at, tries, why in rows]

    def send_again(self, name: str) -> int:
        """Queues what was set aside for an output once more, at its place by age; how many they are."""
        with self._writing(durable=True):
            self._database.execute("INSERT INTO waiting SELECT output, message FROM aside WHERE output = ?", (name,))
            count = self._database.execute("DELETE FROM aside WHERE output = ?", (name,)).rowcount
            self._counts[name] += count
        self._news[name].set()
        return count

    def flush(self, timeout: float) -> bool:
        """Waits until nothing waits, for at most ``timeout`` seconds; whether it came to that."""
        end = time.monotonic() + timeout
        while any(self.pending().values()):
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Stops sending; what waits stays on the disk. Sends that are under way may take up to ``timeout`` seconds."""
        self._stop.set()
        for news in self._news.values():
            news.set()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._lock:
            self._database.close()

    def _ready(self, names: Sequence[str]) -> None:
        with self._database:
            for name in names:
                self._database.execute("INSERT OR IGNORE INTO counts VALUES (?, 0, 0)", (name,))
            # A name that nobody uses any more must not fill the disk.
            for (name,) in self._database.execute("SELECT output FROM counts").fetchall():
                self._expire(name)
        query = "SELECT COUNT(*) FROM waiting WHERE output = ?"
        self._counts = Counter({name: int(self._database.execute(query, (name,)).fetchone()[0]) for name in names})

    def _status(self, name: str) -> OutputStatus:
        one = self._database.execute("SELECT sent, dropped FROM counts WHERE output = ?", (name,)).fetchone()
        aside = self._database.execute("SELECT COUNT(*) FROM aside WHERE output = ?", (name,)).fetchone()[0]
        sent, dropped = one
        failures, problem, last = self._troubles[name]
        return OutputStatus(name, self._counts[name], aside, sent, dropped, failures, problem, last)

    def _drop(self, name: str, query: str, values: tuple[Any, ...], table: str = "waiting") -> None:
        """Gives messages up, within a transaction."""
        rows = self._database.execute(query, values).fetchall()
        for (row,) in rows:
            self._database.execute(f"DELETE FROM {table} WHERE output = ? AND message = ?", (name, row))
            self._database.execute(_CLEAN, (row,))
        self._database.execute("UPDATE counts SET dropped = dropped + ? WHERE output = ?", (len(rows), name))
        if table == "waiting":
            self._counts[name] -= len(rows)

    def _expire(self, name: str) -> None:
        before = time.time() - 86400 * self.limits.max_days
        for table in ("waiting", "aside"):
            query = f"SELECT message FROM {table} JOIN messages ON id = message WHERE output = ? AND at < ?"
            self._drop(name, query, (name, before), table)

    # What follows is run by the threads.

    def _serve(self, output: Output) -> None:
        tries = refusals = 0
        while not self._stop.is_set():
            try:
                next_ = self._next(output.name)
                if next_ is None:
                    self._news[output.name].wait(60)
                    continue
                row, message = next_
                error = self._try(output, message)
                if error is None:
                    tries = refusals = 0
                    self._finish(output.name, row)
                    continue
                tries, refusals = tries + 1, refusals + error.refused
                if error.refused and refusals >= self.limits.tries:
                    self._set_aside(output.name, row, tries, str(error))
                    tries = refusals = 0
                    continue
                self._stop.wait(self._wait(tries, error.after))
            except (StoreError, sqlite3.Error) as problem:  # a full disk: the message was sent or not, and comes again
                _log.warning("%s: %s", output.name, problem)
                self._trouble(output.name, str(problem))
                self._stop.wait(self.limits.longest_wait)
        _closed(output)

    def _next(self, name: str) -> tuple[int, Message] | None:
        self._news[name].clear()
        query = (
            "SELECT m.id, m.body, m.at FROM waiting w JOIN messages m ON m.id = w.message WHERE w.output = ? "
            "ORDER BY w.message LIMIT 1"
        )
        with self._writing():
            found = self._database.execute(query, (name,)).fetchone()
            if found is not None and found[2] < time.time() - 86400 * self.limits.max_days:
                self._expire(name)
                found = self._database.execute(query, (name,)).fetchone()
        return None if found is None else (found[0], Message(f"{self._box}-{found[0]}", bytes(found[1])))

    def _try(self, output: Output, message: Message) -> OutputError | None:
        try:
            output.send(message)
        except OutputError as problem:
            error = problem
        except Exception as problem:  # of an output that somebody else wrote: the queue must go on
            error = OutputError(f"{output.name}: {type(problem).__name__}: {first_line(problem)}")
        else:
            self._troubles[output.name] = (0, "", time.time())
            return None
        self._trouble(output.name, str(error))
        return error

    def _trouble(self, name: str, problem: str) -> None:
        failures, _, last = self._troubles[name]
        if not failures:
            _log.warning("%s", problem)
        self._troubles[name] = (failures + 1, problem, last)

    def _finish(self, name: str, row: int) -> None:
        """Takes a message away that has arrived; as often as it takes, so that a full disk makes no twins."""
        while True:
            try:
                with self._writing():
                    if self._database.execute(
                        "DELETE FROM waiting WHERE output = ? AND message = ?", (name, row)
                    ).rowcount:
                        self._counts[name] -= 1
                    self._database.execute(_CLEAN, (row,))
                    self._database.execute("UPDATE counts SET sent = sent + 1 WHERE output = ?", (name,))
                return
            except StoreError as problem:
                self._trouble(name, str(problem))
                if self._stop.wait(self.limits.longest_wait):
                    return

    def _set_aside(self, name: str, row: int, tries: int, reason: str) -> None:
        _log.error("%s: message %d was set aside after %d tries: %s", name, row, tries, reason)
        over = "SELECT message FROM aside WHERE output = ? ORDER BY message DESC LIMIT -1 OFFSET ?"
        with self._writing():
            if self._database.execute("DELETE FROM waiting WHERE output = ? AND message = ?", (name, row)).rowcount:
                self._counts[name] -= 1
                self._database.execute("INSERT INTO aside VALUES (?, ?, ?, ?)", (name, row, tries, reason))
                self._drop(name, over, (name, self.limits.aside), "aside")

    def _wait(self, tries: int, after: float | None) -> float:
        longest = self.limits.longest_wait
        wait = min(longest, self.limits.first_wait * 2.0 ** min(tries - 1, 30))
        return min(longest, max(after or 0.0, wait * random.uniform(0.75, 1)))

    @contextmanager
    def _writing(self, durable: bool = False) -> Iterator[None]:
        """A transaction. One that is not durable may be undone by a power cut: a message is sent again then."""
        with self._lock, self._errors():
            self._database.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            with self._database:
                yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: the queue to the line cannot be used ({first_line(error)})") from error


def _opened(path: Path) -> sqlite3.Connection:
    """A database of this version, made where there is none."""
    database = sqlite3.connect(path, timeout=10, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            with closing(database.cursor()) as cursor:
                cursor.executescript(
                    f"BEGIN;{_SCHEMA}INSERT INTO box VALUES ('{secrets.token_hex(4)}');"
                    f"PRAGMA user_version = {_VERSION};COMMIT;"
                )
        elif version != _VERSION:
            raise StoreError(f"{path}: is no queue to the line, or one of another version ({version}, not {_VERSION})")
    except BaseException:
        database.close()
        raise
    return database


def _closed(output: Output) -> None:
    try:
        output.close()
    except Exception as problem:  # as in _try: there is nobody left to tell
        _log.warning("%s: %s", output.name, first_line(problem))

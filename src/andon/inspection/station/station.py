"""The station: named inspectors behind one queue, a journal of every verdict, monitors of drift, outputs to the line.

It knows nothing of HTTP. What it has acknowledged (``inspect`` returned, a job's future has a result) is in the
journal.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from andon.core import AndonError, ConfigError, StoreError
from andon.data import decode_image
from andon.inspection.file import InspectorFile
from andon.inspection.inspector import Inspector
from andon.inspection.station.errors import BusyError, UnknownError
from andon.inspection.station.jobs import Inspected, Job, entry_of, plain
from andon.inspection.station.journal import Journal
from andon.inspection.station.limits import Limits, Retention
from andon.inspection.station.monitor import DriftMonitor, DriftState
from andon.inspection.station.outbox import Outbox, Output
from andon.inspection.station.outputs import drift_message, review_message, verdict_message
from andon.inspection.station.records import Entry, Review, Word
from andon.inspection.station.served import Loaded, Served
from andon.inspection.versions import undone_on_failure

__all__ = ["Inspected", "Job", "Limits", "Served", "Station"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RECENT_BYTES = 2**26
"""Of images just sent, which can be shown and reviewed whether the journal keeps them or not."""
_MOST_RESTORED = 20_000
"""Scores that a monitor is restored from."""
_PRUNE_SECONDS = 600.0


class Station:
    """Named inspectors, one queue to the model, and what is kept and told of their verdicts. For any thread.

    Args:
        inspectors: files, or inspectors, by name.
        folder: of the journal and of what waits to be sent; made where there is none, and held by one process.
        limits, retention: as they say.
        outputs: to the line.

    Attributes:
        journal: of all verdicts.
        outbox: what waits to be sent; None without outputs.
        changing: is held by whoever changes an inspector, or its file.
        listeners: are told of every acknowledged verdict, in the model's thread; they must be quick.

    Raises:
        AndonError: a file that cannot be read, a folder in use or not writable.
    """

    def __init__(
        self,
        inspectors: Mapping[str, str | Path | Inspector],
        folder: Path,
        *,
        limits: Limits | None = None,
        retention: Retention | None = None,
        outputs: Sequence[Output] = (),
    ) -> None:
        self.folder, self.limits, self.retention = folder, limits or Limits(), retention or Retention()
        self._check_names(inspectors)
        self._folder_lock = _held(folder)
        try:
            loaded = {name: Loaded.of(source) for name, source in inspectors.items()}
            self.journal = Journal(folder / "journal.sqlite", self.retention)
            self._served = {name: self._serve(name, found) for name, found in loaded.items()}
            self.outbox = Outbox(folder / "outbox.sqlite", outputs) if outputs else None
        except BaseException:
            if hasattr(self, "journal"):
                self.journal.close()
            self._folder_lock.release()
            raise
        self.listeners: list[Callable[[Inspected], None]] = []
        # Short: counters. Verdicts are written down and told in one order. One changes inspectors at a time.
        self._lock, self._order, self.changing = threading.Lock(), threading.Lock(), threading.RLock()
        self._asking, self._asked = threading.Lock(), (float("-inf"), tuple[str, ...]())
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._recent_bytes = self._admitted = 0
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._draining, self._closed = False, threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"andon-model-{number}", daemon=True)
            for number in range(self.limits.concurrency)
        ]
        self._threads.append(threading.Thread(target=self._keep_pruned, name="andon-retention", daemon=True))
        for thread in self._threads:
            thread.start()

    # The inspectors

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inspectors, in the order given."""
        return tuple(self._served)

    def served(self, name: str | None = None) -> Served:
        """An inspector and what belongs to it; without a name the only one.

        Raises:
            UnknownError: no inspector has the name.
            ConfigError: none was named, and there are several.
        """
        if name is None:
            if len(self._served) > 1:
                raise ConfigError(f"name the inspector; there are {', '.join(self.names)}")
            return next(iter(self._served.values()))
        try:
            return self._served[name]
        except KeyError:
            raise UnknownError(f"no inspector has this name; there are {', '.join(self.names)}") from None

    def inspector(self, name: str | None = None) -> Inspector:
        """An inspector with the thresholds that hold."""
        return self.served(name).inspector

    def monitor(self, name: str | None = None) -> DriftMonitor:
        """The monitor of an inspector's scores."""
        return self.served(name).monitor

    def move_thresholds(self, name: str, look: float, stop: float, who: str = "") -> None:
        """Moves thresholds by value, in the file too; the journal keeps who did it.

        Raises:
            ConfigError: thresholds that are none, or a file that changed since it was read.
        """
        with self.changing:
            served = self.served(name)
            moved = served.inspector.with_thresholds(look, stop)
            fingerprint, before = served.fingerprint, served.inspector.thresholds
            text = f"look {before.look:.6g} → {look:.6g}, stop {before.stop:.6g} → {stop:.6g}"
            with nullcontext() if served.path is None else undone_on_failure(served.path):
                if served.path is not None:
                    file = InspectorFile.read(served.path)
                    if file.fingerprint != served.fingerprint:
                        raise ConfigError(f"{served.path.name}: has changed since the station read it; start it again")
                    file = file.with_content(thresholds={"look": look, "stop": stop})
                    file.write(served.path)
                    fingerprint = file.fingerprint
                self.journal.event(name, "thresholds", who, text)
            self._served[name] = replace(served, inspector=moved, fingerprint=fingerprint)

    def replace(self, name: str, source: str | Path | Inspector, who: str = "") -> None:
        """Another inspector takes a name's place; verdicts in progress are the earlier one's.

        Raises:
            AndonError: a file that cannot be read, or a journal that cannot be written; the earlier one stays.
        """
        self.served(name)
        found = Loaded.of(source)
        with self.changing:
            before, after = self._served[name], self._serve(name, found)
            self.journal.event(name, "model", who, f"{before.model} → {found.model}")
            self._served[name] = after

    def reset_drift(self, name: str, who: str = "") -> None:
        """Somebody saw to the drift: the monitor begins anew."""
        with self.changing, self._order:
            served = self.served(name)
            self.journal.event(name, "drift", who, "the monitor begins anew")
            served.monitor.reset()

    # Inspecting

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for one request at a time in the block; BusyError where there is none, or the station shuts down."""
        with self._lock:
            self._check_room()
            self._admitted += 1
        try:
            yield
        finally:
            with self._lock:
                self._admitted -= 1

    def submit(self, data: bytes, inspector: str | None = None, name: str = "image") -> Job:
        """Puts an image into the queue.

        Args:
            data: an image's file.
            inspector: its name; None where there is only one.
            name: of the image, for the journal.

        Raises:
            BusyError: the queue is full, or the station is closed.
            ConfigError: no such inspector.
        """
        return self._queued(Job(data, self.served(inspector).name, plain(name)))

    def _queued(self, job: Job) -> Job:
        with self._lock:
            if self._closed.is_set():
                raise BusyError("the station is shutting down")
            if self._waiting.qsize() >= self.limits.queue + self.limits.concurrency:
                raise BusyError("the queue is full; try again later")
            self._waiting.put(job)
        return job

    def inspect(self, data: bytes, *, inspector: str | None = None, name: str = "image") -> Inspected:
        """The verdict on an image; when it returns, the journal has it.

        Raises:
            DataError: an image that cannot be read, or does not fit the inspector.
            ConfigError: no such inspector.
            BusyError: no room in the queue, or no verdict in time.
            StoreError: the journal cannot be written: the verdict does not count.
        """
        return self._waited_for(self.submit(data, inspector, name))

    def _waited_for(self, job: Job) -> Inspected:
        try:
            return job.future.result(self.limits.timeout)
        except FutureTimeoutError:
            job.give_up()
            raise BusyError(f"no verdict within {self.limits.timeout:g} s; try again later") from None

    def look_again(self, entry_id: int) -> Inspected:
        """An entry's image inspected again, for its map, with the thresholds of then; the journal gets nothing.

        Raises:
            UnknownError: no such entry, its image is not kept, or another model has taken the inspector's place.
            BusyError: as ``inspect``.
        """
        entry, data = self.journal.entry(entry_id), self.image(entry_id)
        if data is None:
            raise UnknownError(f"entry {entry_id}: its image is not kept")
        self._served_then(entry)
        return self._waited_for(self._queued(Job(data, entry.inspector, entry.name, again=entry)))

    def image(self, entry_id: int) -> bytes | None:
        """The bytes of an entry's image as they were sent: of one just sent, or one that the journal keeps."""
        with self._lock:
            recent = self._recent.get(entry_id)
        return self.journal.image(entry_id) if recent is None else recent

    def review(self, entry_id: int, word: Word, who: str, note: str = "") -> Review:
        """Writes down what a person says of an entry, and keeps its image where it is still at hand."""
        with self._lock:
            recent = self._recent.get(entry_id)
        review = self.journal.review(entry_id, word, plain(who), plain(note, 2000), recent)
        if self.outbox is not None:
            self.outbox.put(review_message(review))
        return review

    def send_again(self, output: str, who: str = "") -> int:
        """Queues what was set aside for an output once more, and writes down who asked for it; how many they are.

        Raises:
            UnknownError: no output has the name.
            ConfigError: nothing of it is set aside.
        """
        found = {} if self.outbox is None else {status.name: status.aside for status in self.outbox.status()}
        if self.outbox is None or output not in found:
            raise UnknownError(f"no output has this name; there are {', '.join(found) or 'none'}")
        if not found[output]:
            raise ConfigError(f"{output}: nothing is set aside")
        self.journal.event("", "output", plain(who), f"{output}: what was set aside is sent again")
        return self.outbox.send_again(output)

    # Its state

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting.qsize()

    @property
    def draining(self) -> bool:
        """Whether it takes no new work."""
        return self._draining

    def not_ready(self) -> tuple[str, ...]:
        """Why it takes no work at the moment; empty where it does."""
        reasons = []
        try:
            with self._lock:
                self._check_room()
        except BusyError as error:
            reasons.append(str(error))
        if not all(thread.is_alive() for thread in self._threads):
            reasons.append("a thread has died")
        return (*reasons, *self._journal_fault())

    def _journal_fault(self) -> tuple[str, ...]:
        """Why the journal cannot be written; tried once a second at most, whoever asks."""
        with self._asking:
            if time.monotonic() - self._asked[0] > 1:
                try:
                    self.journal.check_writable()
                    self._asked = (time.monotonic(), ())
                except StoreError as error:
                    self._asked = (time.monotonic(), (str(error),))
            return self._asked[1]

    def drain(self) -> None:
        """No new requests from here on; those that were admitted go on."""
        self._draining = True

    def close(self, timeout: float = 10.0) -> None:
        """Ends it: what is in the queue is finished, what waits to be sent is sent as far as ``timeout`` seconds go."""
        self.drain()
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            for _ in range(self.limits.concurrency):
                self._waiting.put(None)
        for thread in self._threads:
            thread.join(self.limits.timeout)
        if self.outbox is not None:
            end = time.monotonic() + timeout
            self.outbox.flush(timeout)
            self.outbox.close(max(1.0, end - time.monotonic()))
        self.journal.close()
        self._folder_lock.release()

    # Inside

    def _check_room(self) -> None:
        if self._draining:
            raise BusyError("the station is shutting down")
        if self._admitted >= self.limits.queue + self.limits.concurrency:
            raise BusyError("the queue is full; try again later")

    def _check_names(self, inspectors: Mapping[str, Any]) -> None:
        if not inspectors:
            raise ConfigError("a station needs an inspector's file; one is written by andon train")
        for name in inspectors:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r}: an inspector's name has letters, digits, dots, underscores and hyphens; "
                    "give another one: name=file.andon"
                )

    def _serve(self, name: str, found: Loaded) -> Served:
        monitor = DriftMonitor(found.inspector.calibration.scores)
        since = self.journal.drift_reset(name)
        points = self.journal.scores(name, found.model, _MOST_RESTORED)
        monitor.update_all(point.score for point in points if point.at > since)
        return Served(name, found.inspector, found.model, found.fingerprint, found.path, monitor)

    def _work(self) -> None:
        """A model's thread: one job after the other."""
        while (job := self._waiting.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                done = self._judged(job) if job.again is None else self._seen_again(job, job.again)
            except BaseException as error:
                job.future.set_exception(error)
            else:
                job.future.set_result(done)

    def _judged(self, job: Job) -> Inspected:
        served, started = self._served[job.inspector], time.perf_counter()
        image = decode_image(job.data, job.name, max_pixels=self.limits.max_pixels)
        try:
            verdict = served.inspector.inspect(image)
        except AndonError as error:  # an array has no name of its own
            raise type(error)(str(error).replace("image 0:", f"{job.name}:", 1)) from error
        entry = entry_of(verdict, job, served, time.perf_counter() - started)
        if not job.keep():
            raise BusyError("given up")
        with self._order:  # monitors and outputs see verdicts in the journal's order
            entry = self.journal.append(entry, job.data)
            self._remember(entry.id, job.data)
            drifted = self._watched(served, entry)
            if self.outbox is not None:
                self.outbox.put(verdict_message(entry))
                if drifted is not None:
                    self.outbox.put(drift_message(served.name, drifted, entry.at))
        done = Inspected(entry, verdict, image, served)
        for listener in self.listeners:
            listener(done)
        return done

    def _served_then(self, entry: Entry) -> Served:
        """The inspector that gave a verdict, with the thresholds of then."""
        served = self.served(entry.inspector)
        if served.model != entry.model:
            raise UnknownError(f"entry {entry.id}: is of an earlier model, which is not at the station any more")
        return replace(served, inspector=served.inspector.with_thresholds(entry.look, entry.stop))

    def _seen_again(self, job: Job, entry: Entry) -> Inspected:
        served = self._served_then(entry)
        image = decode_image(job.data, job.name, max_pixels=self.limits.max_pixels)
        return Inspected(entry, served.inspector.inspect(image), image, served)

    def _watched(self, served: Served, entry: Entry) -> DriftState | None:
        """Tells the monitor a score; its state where it raises the alarm with it."""
        if entry.score is None:
            return None
        state = served.monitor.update(entry.score)
        return state if state.since == state.n else None

    def _remember(self, entry_id: int, data: bytes) -> None:
        with self._lock:
            self._recent[entry_id] = data
            self._recent_bytes += len(data)
            while self._recent_bytes > _RECENT_BYTES:
                self._recent_bytes -= len(self._recent.popitem(last=False)[1])

    def _keep_pruned(self) -> None:
        while True:
            try:
                self.journal.prune()
            except StoreError as error:
                _log.warning("images could not be pruned: %s", error)
            if self._closed.wait(_PRUNE_SECONDS):
                return


def _held(folder: Path) -> FileLock:
    """The folder's lock; StoreError where another process has it."""
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{folder}: is in use by another station; give another --folder") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    return lock

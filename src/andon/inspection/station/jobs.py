"""Images on their way to a verdict, and what is told of it."""

from __future__ import annotations

import hashlib
import math
import threading
from concurrent.futures import Future
from typing import NamedTuple

from andon.core import ImageArray
from andon.inspection.inspector import Verdict
from andon.inspection.station.records import Entry
from andon.inspection.station.served import Served

__all__ = ["Inspected", "Job", "entry_of", "plain"]

_LONGEST_NAME = 200


class Inspected(NamedTuple):
    """An acknowledged verdict.

    Attributes:
        entry: as it is in the journal.
        verdict: with its map.
        image: RGB uint8 ``[H, W, 3]``.
        served: the inspector that gave it.
    """

    entry: Entry
    verdict: Verdict
    image: ImageArray
    served: Served


class Job:
    """An image that waits for its verdict.

    Attributes:
        data, inspector, name: the image's file, who is to inspect it, what it is called.
        again: the entry whose image it is, which is only looked at again; None for a new one.
        future: gets an ``Inspected``, or what is wrong with the image.
    """

    def __init__(self, data: bytes, inspector: str, name: str, again: Entry | None = None) -> None:
        self.data, self.inspector, self.name, self.again = data, inspector, name, again
        self.future: Future[Inspected] = Future()
        self._lock = threading.Lock()
        self._kept = self._dropped = False

    def give_up(self) -> bool:
        """Nobody waits any more: nothing of it is written down, unless that has begun; whether it was in time."""
        with self._lock:
            self._dropped = self._dropped or not self._kept
        self.future.cancel()
        return self._dropped

    def keep(self) -> bool:
        """From here on the verdict counts; False where it was given up before."""
        with self._lock:
            self._kept = not self._dropped
        return self._kept


def entry_of(verdict: Verdict, job: Job, served: Served, seconds: float) -> Entry:
    return Entry(
        inspector=served.name,
        model=served.model,
        name=job.name,
        digest=hashlib.sha256(job.data).hexdigest(),
        verdict=verdict.verdict,
        score=_number(verdict.score),
        p_value=_number(verdict.p_value),
        look=verdict.thresholds.look,
        stop=verdict.thresholds.stop,
        reason=verdict.reason or None,
        area=None if verdict.anomaly_map is None else verdict.area,
        regions=verdict.boxes,
        width=verdict.size[1],
        height=verdict.size[0],
        seconds=seconds,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plain(text: str, longest: int = _LONGEST_NAME) -> str:
    """A text from outside as one that can be stored and shown: no control characters, no lone surrogates."""
    shown = "".join(c if c.isprintable() else "�" for c in text[:longest])
    return shown.encode("utf-8", "replace").decode()

"""What the journal keeps of a verdict, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from andon.inspection.inspector import Box

__all__ = ["LABEL_COLUMNS", "WORDS", "Entry", "Event", "Pruned", "Review", "ScorePoint", "Word"]

Word = Literal["good", "defective"]
WORDS: tuple[Word, ...] = ("good", "defective")
LABEL_COLUMNS = (
    "id", "at", "inspector", "model", "name", "digest", "verdict", "score", "p_value", "look", "stop", "label", "who",
    "reviewed_at", "note", "has_image",
)  # fmt: skip
"""Of the table of reviewed entries."""


@dataclass(frozen=True)
class Review:
    """What a person says of an entry.

    Attributes:
        entry: its id.
        at: when, seconds since the epoch.
        word: what the part is.
        who: says so.
        note: in words.
    """

    entry: int
    at: float
    word: Word
    who: str
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """One verdict, as it was acknowledged.

    Attributes:
        id: counted up.
        at: when, seconds since the epoch.
        inspector: its name at the station.
        model: which one it was, whatever its thresholds (``model_fingerprint``).
        name: of the image, as it was sent.
        digest: SHA-256 of the image's bytes, hexadecimal.
        verdict: "pass", "look", "stop" or "part not found".
        score, p_value: None where the part was not found.
        look, stop: thresholds that were held against the score.
        reason: in words, where it is not the score; None otherwise.
        area: part of the image above the pixel threshold, 0..1; None for a method without maps.
        regions: places above the pixel threshold.
        width, height: of the image, pixels.
        seconds: that decoding and inspecting took.
        has_image: whether the journal holds the image.
        review: the last one; None where nobody said anything.
    """

    inspector: str
    model: str
    name: str
    digest: str
    verdict: str
    score: float | None
    p_value: float | None
    look: float
    stop: float
    reason: str | None = None
    area: float | None = None
    regions: tuple[Box, ...] = ()
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    at: float = 0.0
    id: int = 0
    has_image: bool = False
    review: Review | None = None


class ScorePoint(NamedTuple):
    """A score in the order of time."""

    id: int
    at: float
    score: float
    p_value: float


class Event(NamedTuple):
    """What was done: thresholds moved, a model replaced, messages sent again (of no inspector: "")."""

    id: int
    at: float
    inspector: str
    kind: str
    who: str
    text: str


class Pruned(NamedTuple):
    """What went: images, and their bytes."""

    images: int
    n_bytes: int

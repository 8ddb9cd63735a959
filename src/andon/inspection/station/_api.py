"""What the service says and takes: the models that its OpenAPI description is made of."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from andon.inspection.inspector import VerdictName
from andon.inspection.station.journal import Entry, Review, Word
from andon.inspection.station.station import Inspected, Served

__all__ = [
    "AsideAnswer",
    "BatchAnswer",
    "BatchItem",
    "EntriesAnswer",
    "EntryAnswer",
    "ErrorAnswer",
    "ErrorBody",
    "HealthAnswer",
    "InspectionAnswer",
    "InspectorAnswer",
    "InspectorsAnswer",
    "OutputAnswer",
    "OutputsAnswer",
    "ReadyAnswer",
    "ReviewAnswer",
    "ReviewRequest",
    "SendAgainRequest",
    "SentAgainAnswer",
    "review_answer",
]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorBody(_Answer):
    """What went wrong."""

    code: str = Field(description="A word for programs.", examples=["image_refused"])
    message: str = Field(description="A sentence for people.")


class ErrorAnswer(_Answer):
    """Every answer whose status is 400 or more."""

    error: ErrorBody


class ThresholdsAnswer(_Answer):
    """Thresholds of the score: above ``look`` a part is looked at, above ``stop`` it stops."""

    look: float
    stop: float


class RegionAnswer(_Answer):
    """A place above the pixel threshold, in pixels of the image (of the aligned frame, where parts are aligned)."""

    x: int
    y: int
    width: int
    height: int
    area: int = Field(description="Pixels of it.")
    peak: float = Field(description="The map's highest value in it.")


class ReviewAnswer(_Answer):
    """What a person says of an entry."""

    entry: int
    at: datetime
    word: Word
    who: str
    note: str


class EntryAnswer(_Answer):
    """A verdict as it is in the journal."""

    id: int
    at: datetime
    inspector: str
    model: str = Field(description="Fingerprint of the model, whatever its thresholds.")
    name: str = Field(description="Of the image, as it was sent.")
    digest: str = Field(description="SHA-256 of the image's bytes.")
    verdict: VerdictName
    score: float | None = Field(description="Higher is more anomalous; null where the part was not found.")
    p_value: float | None = Field(description="How rare so high a score is among good parts.")
    thresholds: ThresholdsAnswer
    reason: str | None = Field(description="In words, where it is not the score.")
    area: float | None = Field(description="Part of the image above the pixel threshold, 0..1; null without maps.")
    regions: tuple[RegionAnswer, ...] = Field(description="Places above the pixel threshold, the largest first.")
    width: int
    height: int
    milliseconds: float = Field(description="That decoding and inspecting took.")
    has_image: bool = Field(description="Whether the journal keeps the image.")
    review: ReviewAnswer | None = None

    @classmethod
    def of(cls, entry: Entry) -> EntryAnswer:
        return cls(**entry_fields(entry))


class InspectionAnswer(EntryAnswer):
    """A verdict that was just given; it is in the journal."""

    promise: tuple[str, ...] = Field(description="What the thresholds mean, a sentence each.")
    heat_map: str | None = Field(default=None, description="PNG, base64; null unless asked for.")

    @classmethod
    def given(cls, done: Inspected, overlay: bytes | None) -> InspectionAnswer:
        """Of a verdict, with its overlay as a PNG file where it was asked for."""
        heat_map = None if overlay is None else base64.b64encode(overlay).decode()
        return cls(**entry_fields(done.entry), promise=done.served.inspector.promise(), heat_map=heat_map)


class BatchItem(_Answer):
    """One image of a batch: its result, or why it has none."""

    name: str
    result: InspectionAnswer | None = None
    error: ErrorBody | None = None


class BatchAnswer(_Answer):
    """The images of a batch, in the order sent."""

    items: tuple[BatchItem, ...]
    errors: int = Field(description="Images without a result.")


class DriftAnswer(_Answer):
    """What the monitor of an inspector's scores says."""

    n: int = Field(description="Parts seen since the start or the last reset.")
    evidence: float = Field(description="1 at the start; without drift it hardly ever reaches the bound.")
    bound: float
    alarmed: bool
    since: int | None = Field(description="The part at which it alarmed.")
    direction: str | None = Field(description="How scores changed.")
    sentence: str


class InspectorAnswer(_Answer):
    """An inspector of this station."""

    name: str
    method: str
    model: str
    fingerprint: str = Field(description="Of its file, as andon train prints it.")
    thresholds: ThresholdsAnswer
    promise: tuple[str, ...]
    calibrated_on: int = Field(description="Good images.")
    size: tuple[int, int] | None = Field(description="Height and width of the training images, where all have one.")
    created: str
    drift: DriftAnswer

    @classmethod
    def of(cls, served: Served) -> InspectorAnswer:
        inspector, state = served.inspector, served.monitor.state
        return cls(
            name=served.name,
            method=inspector.provenance.title,
            model=served.model,
            fingerprint=served.fingerprint,
            thresholds=ThresholdsAnswer(look=inspector.thresholds.look, stop=inspector.thresholds.stop),
            promise=inspector.promise(),
            calibrated_on=len(inspector.calibration),
            size=inspector.provenance.size,
            created=inspector.provenance.created,
            drift=DriftAnswer(
                n=state.n,
                evidence=state.evidence,
                bound=state.bound,
                alarmed=state.alarmed,
                since=state.since,
                direction=state.direction,
                sentence=state.sentence,
            ),
        )


class InspectorsAnswer(_Answer):
    """All of them."""

    inspectors: tuple[InspectorAnswer, ...]


class EntriesAnswer(_Answer):
    """A page of the journal, the newest first."""

    entries: tuple[EntryAnswer, ...]
    next: int | None = Field(description="Give it as before for the next page; null on the last.")


class ReviewRequest(BaseModel):
    """What a person says of an entry."""

    model_config = ConfigDict(extra="forbid")

    word: Word
    who: Annotated[str, Field(min_length=1, max_length=200)]
    note: Annotated[str, Field(max_length=2000)] = ""


class AsideAnswer(_Answer):
    """A message that its receiver refused."""

    message_id: str
    type: str = Field(description="Of the message: verdict, review or drift.")
    entry: int | None = Field(description="Of the journal, where the message is of one.")
    at: datetime
    tries: int
    reason: str = Field(description="The receiver's last answer.")


class OutputAnswer(_Answer):
    """How an output fares."""

    name: str
    waiting: int = Field(description="Messages that are still to be sent.")
    aside: int = Field(description="Messages that the receiver refused; they can be sent again.")
    sent: int = Field(description="Messages that arrived, since the queue was made.")
    dropped: int = Field(description="Messages that were given up, for their number or age.")
    failures: int = Field(description="In a row, since the last message that arrived.")
    last_error: str = Field(description="What was wrong last; empty where nothing is.")
    last_sent: datetime | None = Field(description="When a message arrived last; null where none has since the start.")
    set_aside: tuple[AsideAnswer, ...] = Field(description="The oldest of them first.")


class OutputsAnswer(_Answer):
    """The station's outputs."""

    outputs: tuple[OutputAnswer, ...]


class SendAgainRequest(BaseModel):
    """Who has messages sent again."""

    model_config = ConfigDict(extra="forbid")

    who: Annotated[str, Field(min_length=1, max_length=200)]


class SentAgainAnswer(_Answer):
    """Messages that wait to be sent again."""

    output: str
    queued: int


class HealthAnswer(_Answer):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class ReadyAnswer(_Answer):
    """Whether images are taken."""

    status: Literal["ready"] = "ready"
    inspectors: tuple[str, ...]


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Of an ``EntryAnswer``."""
    review = entry.review
    fields = {name: getattr(entry, name) for name in EntryAnswer.model_fields if hasattr(entry, name)}
    return fields | {
        "at": moment(entry.at),
        "thresholds": ThresholdsAnswer(look=entry.look, stop=entry.stop),
        "regions": tuple(RegionAnswer(**box._asdict()) for box in entry.regions),
        "milliseconds": round(1000 * entry.seconds, 3),
        "review": None if review is None else review_answer(review),
    }


def review_answer(review: Review) -> ReviewAnswer:
    """A review as it is told."""
    return ReviewAnswer(entry=review.entry, at=moment(review.at), word=review.word, who=review.who, note=review.note)

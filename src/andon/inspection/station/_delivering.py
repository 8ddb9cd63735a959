"""The station's outputs as the page and the API tell of them, and how messages that were set aside are sent again."""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Path, Query

from andon.inspection.station._api import (
    AsideAnswer,
    OutputAnswer,
    OutputsAnswer,
    SendAgainRequest,
    SentAgainAnswer,
    moment,
)
from andon.inspection.station._views import moment as clock
from andon.inspection.station.errors import UnknownError
from andon.inspection.station.jobs import plain
from andon.inspection.station.outbox import Aside, Outbox, OutputStatus
from andon.inspection.station.station import Station

__all__ = ["outputs_router", "outputs_view"]

_LISTED = 50
_SENT_BEFORE = 10


class _Refused(NamedTuple):
    """A message that was set aside, as it is told."""

    message_id: str
    type: str
    entry: int | None
    at: float
    tries: int
    reason: str


def outputs_router(station: Station) -> APIRouter:
    """The API's routes of a station's outputs."""
    router = APIRouter(tags=["outputs"])

    @router.get("/v1/outputs", response_model=OutputsAnswer)
    def outputs(
        limit: Annotated[int, Query(ge=0, le=1000, description="Set-aside messages of each output.")] = _LISTED,
    ) -> OutputsAnswer:
        """The outputs: what waits, what was refused and why, what was sent and given up."""
        box = station.outbox
        told = [] if box is None else [_told(box, status, limit) for status in box.status()]
        return OutputsAnswer(outputs=tuple(told))

    @router.post("/v1/outputs/{name:path}/send-again", response_model=SentAgainAnswer)
    def send_again(name: Annotated[str, Path(max_length=2000)], asked: SendAgainRequest) -> SentAgainAnswer:
        """Queues what was set aside for an output once more; its name percent-encoded."""
        return SentAgainAnswer(output=name, queued=station.send_again(name, asked.who))

    return router


def _told(box: Outbox, status: OutputStatus, limit: int) -> OutputAnswer:
    aside = [_refused(box, status.name, message) for message in box.aside(status.name, limit)]
    return OutputAnswer(
        name=status.name,
        waiting=status.waiting,
        aside=status.aside,
        sent=status.sent,
        dropped=status.dropped,
        failures=status.failures,
        last_error=_words(box, status.name, status.last_error),
        last_sent=None if status.last_sent is None else moment(status.last_sent),
        set_aside=tuple(AsideAnswer(**one._asdict() | {"at": moment(one.at)}) for one in aside),
    )


def outputs_view(station: Station) -> dict[str, Any]:
    """The page of the outputs.

    Raises:
        UnknownError: the station has none.
    """
    box = station.outbox
    if box is None:
        raise UnknownError("this station has no outputs; andon serve gets them with --webhook or --mqtt")
    again = [event for event in station.journal.events("") if event.kind == "output"]
    return {
        "outputs": [_shown(box, status) for status in box.status()],
        "again": [{"time": clock(e.at), "who": e.who, "text": e.text} for e in again[:_SENT_BEFORE]],
    }


def _shown(box: Outbox, status: OutputStatus) -> dict[str, Any]:
    refused = [_refused(box, status.name, message) for message in box.aside(status.name, _LISTED)]
    return {
        "name": status.name,
        "waiting": f"{status.waiting:,}",
        "aside": f"{status.aside:,}",
        "sent": f"{status.sent:,}",
        "dropped": f"{status.dropped:,}",
        "failing": status.failures > 0,
        "failures": f"{status.failures:,} {'try' if status.failures == 1 else 'tries'} in a row failed",
        "last_error": _words(box, status.name, status.last_error),
        "last_sent": "" if status.last_sent is None else clock(status.last_sent),
        "refused": [one._asdict() | {"at": clock(one.at)} for one in refused],
        "more": status.aside - len(refused),
    }


def _refused(box: Outbox, name: str, aside: Aside) -> _Refused:
    body = json.loads(aside.message.body)
    kind, entry = str(body.get("type", "message")), body.get("id", body.get("entry"))
    entry = entry if isinstance(entry, int) and kind in ("verdict", "review") else None
    return _Refused(aside.message.id, kind, entry, aside.at, aside.tries, _words(box, name, aside.reason))


def _words(box: Outbox, name: str, reason: str) -> str:
    """A reason without the output's name and the queue's folder, on one line of printable characters."""
    return plain(reason.removeprefix(f"{name}: ").replace(str(box.path), box.path.name), 500)

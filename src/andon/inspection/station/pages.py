"""The station's web page: inspect, thresholds, history, drift, improve, outputs. The server renders; scripts only help.

Everything essential works without a script, and from the keyboard. All texts are escaped by the templates; images are
decoded and encoded anew before a browser gets them; no script or style stands in a page itself, so that the security
policy can forbid them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from andon.core import ConfigError, DataError
from andon.inspection.calibration import Thresholds
from andon.inspection.station import _views as views
from andon.inspection.station._auth import COOKIE
from andon.inspection.station._delivering import outputs_view
from andon.inspection.station._improving import Improvements
from andon.inspection.station._pictures import Pictures
from andon.inspection.station._rendering import PageRoute, render_page, root_of, static_file, to
from andon.inspection.station.errors import UnknownError
from andon.inspection.station.journal import WORDS, Entry, Word
from andon.inspection.station.station import Served, Station

__all__ = ["page_router", "render_page"]

_LINKS = (
    ("/", "Inspect"),
    ("/history", "History"),
    ("/thresholds", "Thresholds"),
    ("/drift", "Drift"),
    ("/improve", "Improve"),
    ("/outputs", "Outputs"),
)
_DONE = {
    "review": "Your verdict is written down.",
    "all-reviewed": "Your verdict is written down. Nothing else waits for a review.",
    "thresholds": "The thresholds are moved; they hold from the next image on.",
    "drift": "The drift alarm begins anew with the next part.",
    "accepted": "The update is accepted: the new version inspects from the next image on.",
    "again": "What was set aside is queued again; what is refused again comes back here.",
    "back": "The earlier version is back; it inspects from the next image on.",
}
_Id = Annotated[int, Query(ge=0, le=2**53)]
_LATEST = 12
_PAGE = 50
_TO_REVIEW = ("stop", "look", "part not found")


def page_router(station: Station) -> APIRouter:
    """The page's routes.

    Args:
        station: whose page it is.
    """
    page = _Page(station)
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    shown: tuple[tuple[str, Callable[..., Response]], ...] = (
        ("/", page.inspect),
        ("/latest", page.latest),
        ("/history", page.history),
        ("/history/{entry_id}", page.entry),
        ("/history/{entry_id}/image.jpg", page.image),
        ("/history/{entry_id}/thumb.jpg", page.thumb),
        ("/history/{entry_id}/heat.png", page.heat),
        ("/ignored/{name}/{model}.png", page.ignored),
        ("/thresholds", page.thresholds),
        ("/drift", page.drift),
        ("/improve", page.improve),
        ("/outputs", page.outputs),
        ("/static/{name}", static_file),
    )
    for path, handler in shown:
        router.add_api_route(path, handler, methods=["GET", "HEAD"], response_model=None)
    done: tuple[tuple[str, Callable[..., Response]], ...] = (
        ("/inspect", page.upload),
        ("/history/{entry_id}/review", page.review),
        ("/thresholds", page.move),
        ("/drift/reset", page.reset),
        ("/improve/propose", page.propose),
        ("/improve/accept", page.accept),
        ("/improve/drop", page.drop),
        ("/improve/back", page.back),
        ("/outputs/send-again", page.send_again),
    )
    for path, handler in done:
        router.add_api_route(path, handler, methods=["POST"], response_model=None)
    return router


class _Page:
    """The handlers; FastAPI calls them on its threads."""

    def __init__(self, station: Station) -> None:
        self.station, self.pictures, self.improvements = station, Pictures(station), Improvements(station)
        self._traces: dict[str, views.Trace] = {}

    # Inspect

    def inspect(self, request: Request, inspector: str = "") -> Response:
        served = self._named(inspector)
        return self._render("inspect.html.j2", request, served, "/", follow="true", **self._now(request, served))

    def latest(self, request: Request, inspector: str = "", after: _Id = 0) -> Response:
        """What is new since an entry; 204 where nothing is."""
        served = self._named(inspector)
        newest = self.station.journal.entries(inspector=served.name, limit=1)
        if not newest or newest[0].id <= after:
            return Response(status_code=204)
        return self._render("_latest.html.j2", request, served, "/", **self._now(request, served))

    def upload(
        self, request: Request, file: Annotated[UploadFile | None, File()] = None, inspector: str = ""
    ) -> Response:
        """Inspects an image that was chosen or dropped."""
        served = self._named(inspector)
        data = b"" if file is None else file.file.read(self.station.limits.max_bytes + 1)
        if file is None or not data:
            raise DataError("no image was chosen")
        if len(data) > self.station.limits.max_bytes:
            raise DataError(f"the image is larger than {self.station.limits.max_bytes:,} bytes, the station's limit")
        with self.station.admitted():
            entry = self.station.inspect(data, inspector=served.name, name=file.filename or "image").entry
        if "x-part" not in request.headers:
            return to(request, f"/history/{entry.id}")
        return self._render("_latest.html.j2", request, served, "/", **self._now(request, served, entry))

    def _now(self, request: Request, served: Served, entry: Entry | None = None) -> dict[str, Any]:
        entries = self.station.journal.entries(inspector=served.name, limit=_LATEST)
        large = entry or (entries[0] if entries else None)
        return {
            "newest": entries[0].id if entries else 0,
            "shown": None if large is None else self._shown(request, large),
            "latest": self._listed(request, entries),
            "origin": str(request.base_url).rstrip("/"),
            "method": served.inspector.provenance.title,
        }

    # History

    def history(
        self,
        request: Request,
        inspector: str | None = None,
        verdict: Annotated[list[str] | None, Query()] = None,
        since: str = "",
        until: str = "",
        reviewed: str = "",
        before: _Id | None = None,
    ) -> Response:
        served = self._named(inspector or "")
        wanted = tuple(word for word in views.KINDS if word in (verdict or ()))
        entries = self.station.journal.entries(
            inspector=inspector or None,
            verdicts=wanted,
            since=_seconds(since, "From"),
            until=_seconds(until, "Until"),
            reviewed={"yes": True, "no": False}.get(reviewed),
            before=before,
            limit=_PAGE + 1,
        )
        filters = {"inspector": inspector or "", "since": since, "until": until, "reviewed": reviewed}
        query = [(k, v) for k, v in filters.items() if v] + [("verdict", word) for word in wanted]
        address = f"{root_of(request)}/history?"
        more = len(entries) > _PAGE
        entries = entries[:_PAGE]
        return self._render(
            "history.html.j2",
            request,
            served,
            "/history",
            entries=self._listed(request, entries),
            choices=[{"value": w, "verdict": w, "kind": k, "on": w in wanted} for w, k in views.KINDS.items()],
            filters=filters,
            told=_span(entries),
            newest_link=f"{address}{urlencode(query)}" if before is not None else None,
            older_link=f"{address}{urlencode([*query, ('before', entries[-1].id)])}" if more else None,
        )

    def entry(self, request: Request, entry_id: int) -> Response:
        entry = self._entry(entry_id)
        shown = self._shown(request, entry)
        older = self.station.journal.entries(inspector=entry.inspector, before=entry.id, limit=1)
        return self._render(
            "entry.html.j2",
            request,
            self._served_or_first(entry.inspector),
            "/history",
            shown=shown,
            options=[{"value": word, "text": _option(word, entry.verdict)} for word in WORDS],
            older=older[0].id if older else None,
            newer=self._newer(entry),
        )

    def _newer(self, entry: Entry) -> int | None:
        """The next entry of the same inspector, where it is among the next few."""
        newer = self.station.journal.entries(inspector=entry.inspector, before=entry.id + 200, limit=200)
        return min((e.id for e in newer if e.id > entry.id), default=None)

    def review(
        self,
        request: Request,
        entry_id: int,
        word: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
        note: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "",
    ) -> Response:
        """Writes down an operator's verdict."""
        entry = self._entry(entry_id)
        if word not in WORDS or not who.strip():
            raise ConfigError("a review says whether the part is good or defective, and who says so")
        chosen: Word = "good" if word == "good" else "defective"
        self.station.review(entry_id, chosen, who.strip()[:100], note.strip()[:1000])
        if not next:
            return to(request, f"/history/{entry_id}?done=review")
        for before in (entry_id, None):
            waiting = self.station.journal.entries(
                inspector=entry.inspector, verdicts=_TO_REVIEW, reviewed=False, before=before, limit=1
            )
            if waiting:
                return to(request, f"/history/{waiting[0].id}?done=review")
        return to(request, "/history?done=all-reviewed")

    # Pictures

    def image(self, entry_id: int) -> Response:
        return _picture(self.pictures.image(self._entry(entry_id)), "image/jpeg")

    def thumb(self, entry_id: int) -> Response:
        return _picture(self.pictures.thumb(self._entry(entry_id)), "image/jpeg")

    def heat(self, entry_id: int) -> Response:
        return _picture(self.pictures.heat(self._entry(entry_id)), "image/png")

    def ignored(self, name: str, model: str) -> Response:
        served = self._named(name)
        if served.model != model:
            raise UnknownError(f"{name}: another model is in its place")
        return _picture(self.pictures.ignored(served), "image/png")

    # Thresholds

    def thresholds(self, request: Request, inspector: str = "") -> Response:
        served = self._named(inspector)
        calibration, at = served.inspector.calibration, served.inspector.thresholds
        moved = [e for e in self.station.journal.events(served.name) if e.kind == "thresholds"]
        return self._render(
            "thresholds.html.j2",
            request,
            served,
            "/thresholds",
            confirm=None,
            moved=[{"time": views.moment(e.at), "who": e.who, "text": e.text} for e in moved[:10]],
            **views.thresholds_view(calibration, at),
        )

    def move(
        self,
        request: Request,
        inspector: str = "",
        look: Annotated[str, Form()] = "",
        stop: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
        confirmed: Annotated[str, Form()] = "",
    ) -> Response:
        """Asks what moving them would mean, then moves them."""
        served = self._named(inspector)
        try:
            then = Thresholds(float(look), float(stop))
        except ValueError:
            raise ConfigError("thresholds must be numbers") from None
        if confirmed and who.strip():
            self.station.move_thresholds(served.name, then.look, then.stop, who.strip()[:100])
            return _back_to(request, "/thresholds", served, "thresholds")
        calibration = served.inspector.calibration
        confirm = views.confirmation(calibration, served.inspector.thresholds, then)
        return self._render("thresholds.html.j2", request, served, "/thresholds", confirm=confirm, n=len(calibration))

    # Drift

    def drift(self, request: Request, inspector: str = "") -> Response:
        served = self._named(inspector)
        state, trace = served.monitor.state, self._trace(served)
        return self._render(
            "drift.html.j2",
            request,
            served,
            "/drift",
            alarmed=state.alarmed,
            state=state.sentence,
            n=len(trace.scores),
            **views.drift_charts(served, trace, state),
        )

    def reset(self, request: Request, inspector: str = "", who: Annotated[str, Form()] = "") -> Response:
        """Somebody saw to the drift."""
        served = self._named(inspector)
        self.station.reset_drift(served.name, _said_who(who))
        return _back_to(request, "/drift", served, "drift")

    def _trace(self, served: Served) -> views.Trace:
        since = self.station.journal.drift_reset(served.name)
        trace = self._traces.get(served.name)
        if trace is None or trace.key != (served.name, served.model, since):
            trace = self._traces[served.name] = views.Trace(served, since)
        trace.follow(self.station.journal)
        return trace

    # Improve

    def improve(self, request: Request, inspector: str = "") -> Response:
        served = self._named(inspector)
        work = self.improvements.work(served)
        reviewed = self.improvements.reviewed(served)
        return self._render(
            "improve.html.j2",
            request,
            served,
            "/improve",
            work=work,
            proposal=None if work is None or work.proposal is None else views.proposal_view(work.proposal),
            good=self._listed(request, reviewed["good"]),
            defects=len(reviewed["defective"]),
            since=views.moment(self.improvements.date(served)),
            file=f"{served.name}.andon" if served.path is None else served.path.name,
            versions=self.improvements.versions(served),
        )

    def propose(
        self, request: Request, inspector: str = "", entry: Annotated[list[int] | None, Form()] = None
    ) -> Response:
        served = self._named(inspector)
        self.improvements.propose(served, frozenset(entry or ()))
        return _back_to(request, "/improve", served)

    def accept(self, request: Request, inspector: str = "", who: Annotated[str, Form()] = "") -> Response:
        served = self._named(inspector)
        self.improvements.accept(served, _said_who(who))
        return _back_to(request, "/improve", served, "accepted")

    def drop(self, request: Request, inspector: str = "") -> Response:
        served = self._named(inspector)
        self.improvements.drop(served)
        return _back_to(request, "/improve", served)

    def back(
        self, request: Request, inspector: str = "", to: Annotated[str, Form()] = "", who: Annotated[str, Form()] = ""
    ) -> Response:
        served = self._named(inspector)
        self.improvements.back(served, to, _said_who(who))
        return _back_to(request, "/improve", served, "back")

    # Outputs

    def outputs(self, request: Request, inspector: str = "") -> Response:
        view = outputs_view(self.station)
        return self._render("outputs.html.j2", request, self._named(inspector), "/outputs", **view)

    def send_again(
        self,
        request: Request,
        inspector: str = "",
        output: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
    ) -> Response:
        """Queues what was set aside for an output once more."""
        served = self._named(inspector)
        self.station.send_again(output, _said_who(who))
        return _back_to(request, "/outputs", served, "again")

    # What they share

    def _named(self, name: str) -> Served:
        """An inspector; the first one where none is named."""
        return self.station.served(name or self.station.names[0])

    def _served_or_first(self, name: str) -> Served:
        return self._named(name if name in self.station.names else "")

    def _entry(self, entry_id: int) -> Entry:
        if not 0 < entry_id < 2**62:
            raise UnknownError(f"entry {entry_id}: there is none")
        return self.station.journal.entry(entry_id)

    def _shown(self, request: Request, entry: Entry) -> views.Shown:
        served = self.station.served(entry.inspector) if entry.inspector in self.station.names else None
        return views.shown(
            entry,
            served,
            root=root_of(request),
            has_image=self.pictures.at_hand(entry),
            pass_share=self.station.retention.pass_share,
        )

    def _listed(self, request: Request, entries: Sequence[Entry]) -> list[views.Listed]:
        root = root_of(request)
        return [
            views.listed(e, f"{root}/history/{e.id}/thumb.jpg?{e.digest[:12]}" if self.pictures.at_hand(e) else None)
            for e in entries
        ]

    def _render(self, template: str, request: Request, served: Served, path: str, **values: Any) -> Response:
        done = _DONE.get(request.query_params.get("done", ""))
        return render_page(
            template,
            request,
            names=self.station.names,
            inspector=served.name,
            model=served.fingerprint,
            place=path,
            links=[
                {"path": to, "text": text, "here": to == path}
                for to, text in _LINKS
                if to != "/outputs" or self.station.outbox is not None
            ],
            message=None if done is None else {"kind": "good", "text": done},
            leave=COOKIE in request.cookies,
            **values,
        )


def _span(entries: Sequence[Entry]) -> str:
    """How many there are on a page, and of when."""
    if not entries:
        return ""
    first, last = views.moment(entries[-1].at), views.moment(entries[0].at)
    return f"{len(entries)} shown, {first} to {last[11:] if last[:10] == first[:10] else last}"


def _option(word: Word, verdict: str) -> str:
    """ "good: overrules stop"."""
    agrees = {"pass": "good", "stop": "defective"}.get(verdict)
    if agrees is None:
        return word.capitalize()
    return f"{word.capitalize()}: {'confirms' if word == agrees else 'overrules'} {verdict}"


def _back_to(request: Request, path: str, served: Served, done: str = "") -> Response:
    """To an inspector's page, which says what was done."""
    query = {"inspector": served.name, **({"done": done} if done else {})}
    return to(request, f"{path}?{urlencode(query)}")


def _said_who(who: str) -> str:
    if not who.strip():
        raise ConfigError("say who it is")
    return who.strip()[:100]


def _picture(data: bytes, kind: str) -> Response:
    return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


def _seconds(text: str, field: str) -> float | None:
    """A date and time of the station's clock."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"{field}: {text[:40]!r} is no date and time") from None

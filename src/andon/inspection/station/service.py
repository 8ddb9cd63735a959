"""The service: the station's verdicts over HTTP, with OpenAPI, figures, tokens and limits.

FastAPI's pages of the description load their scripts from elsewhere, which a plant's network does not reach: they are
off; ``/openapi.json`` is the description.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response, StreamingResponse

from andon import __version__
from andon.core import AndonError
from andon.inspection.inspector import VerdictName
from andon.inspection.overlay import overlay_image
from andon.inspection.station._api import (
    BatchAnswer,
    BatchItem,
    EntriesAnswer,
    EntryAnswer,
    ErrorAnswer,
    ErrorBody,
    HealthAnswer,
    InspectionAnswer,
    InspectorAnswer,
    InspectorsAnswer,
    ReadyAnswer,
    ReviewAnswer,
    ReviewRequest,
    review_answer,
)
from andon.inspection.station._auth import COOKIE, SESSION_SECONDS, Tokens
from andon.inspection.station._delivering import outputs_router
from andon.inspection.station._errors import RefusedError, error_response, fault, public, told
from andon.inspection.station._guard import Door, Intake, Outside, TokenBucket
from andon.inspection.station._metrics import Metrics
from andon.inspection.station._pictures import png_bytes
from andon.inspection.station._rendering import fault_in_a_page
from andon.inspection.station.errors import BusyError
from andon.inspection.station.jobs import plain
from andon.inspection.station.journal import LABEL_COLUMNS
from andon.inspection.station.pages import page_router, render_page
from andon.inspection.station.station import Inspected, Station

__all__ = ["create_app"]

_PART_BYTES = 2**16
"""Of what a multipart body has beside its files."""
_BATCH = 8
"""A batch's body may have as many bytes as so many images of the largest size."""
_RAW_TYPES = ("application/octet-stream", "")
_BYTES = {"type": "string", "format": "binary"}


def _form(file: dict[str, Any]) -> dict[str, Any]:
    """A form with the field "file"."""
    return {"multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": file}}}}


_IMAGE: dict[str, Any] = {"content": {"application/octet-stream": {"schema": _BYTES}}}
_PNG: dict[str, Any] = {"content": {"image/png": {"schema": _BYTES}}}
_IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **_form({**_BYTES, "description": "An image's file."}),
            **_IMAGE["content"],
            "image/*": {"schema": _BYTES},
        },
    }
}
_BATCH_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": _form({"type": "array", "items": _BYTES})},
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The request is not one."},
    401: {"model": ErrorAnswer, "description": "A token is needed."},
    404: {"model": ErrorAnswer, "description": "There is no such inspector, entry or path."},
    408: {"model": ErrorAnswer, "description": "The body came too slowly."},
    413: {"model": ErrorAnswer, "description": "Too many bytes."},
    415: {"model": ErrorAnswer, "description": "Neither an image nor multipart/form-data."},
    422: {"model": ErrorAnswer, "description": "The image, or a parameter, is refused; the message says why."},
    429: {"model": ErrorAnswer, "description": "Too many requests of this client."},
    503: {"model": ErrorAnswer, "description": "Busy, shutting down, or the journal cannot be written; try again."},
}
InspectorName = Annotated[str | None, Query(max_length=64, description="Needed where there are several.")]
HeatMap = Annotated[Literal["png"] | None, Query(description="Give the overlay as a PNG, base64, too.")]
ImageName = Annotated[str | None, Query(max_length=200, description="Of the image, for the journal.")]
EntryId = Annotated[int, Path(ge=1, le=2**53)]
Seconds = Annotated[float | None, Query(ge=0, le=1e11, description="Seconds since the epoch.")]


def create_app(station: Station, *, tokens: Tokens | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """The ASGI application of a station.

    Args:
        station: what it serves.
        tokens: that open it; none: no token is asked for.
        hosts: names that requests may call it by; None for any.
    """
    tokens, metrics, limits = tokens or Tokens(), Metrics(station), station.limits

    large = {"/batch": _BATCH * limits.max_bytes + _PART_BYTES, "/inspect": limits.max_bytes + _PART_BYTES}
    bucket = None if limits.rate is None else TokenBucket(limits.rate, max(1.0, 2 * limits.rate))
    app = FastAPI(
        title="Andon station",
        version=__version__,
        description="Pass, look or stop, at a promised rate of false alarms.",
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Outside, observed=metrics.request),
            Middleware(Door, tokens=tokens, hosts=hosts, bucket=bucket),
            Middleware(Intake, most=large, in_all=max(2**28, 2 * large["/batch"]), seconds=limits.timeout),
        ],
        responses=_ERRORS,
    )
    for kind in (AndonError, HTTPException):
        app.add_exception_handler(kind, _tell)
    app.add_exception_handler(RequestValidationError, _tell_fault)
    app.include_router(_inspecting(station))
    app.include_router(_journal(station))
    app.include_router(outputs_router(station))
    app.include_router(_state(station, metrics))
    app.include_router(_session(tokens))
    app.include_router(page_router(station), include_in_schema=False)
    return app


async def _tell(request: Request, error: Exception) -> Response:
    return fault_in_a_page(request, error) or error_response(error)


async def _tell_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(RefusedError(422, fault(error.errors())))


# Inspecting


def _inspecting(station: Station) -> APIRouter:
    router = APIRouter(tags=["inspect"])

    async def answered(request: Request, inspector: str | None, name: str | None, heat_map: str | None) -> Response:
        station.served(inspector)  # what there is not is said before a body is read
        with station.admitted():
            data, sent = await _sent_image(request, station.limits.max_bytes)
            done = await _judged(station, request, data, inspector, name or sent)
            as_png = "image/png" in request.headers.get("accept", "")
            png = await run_in_threadpool(overlay_png, done) if heat_map or as_png else None
        if as_png and png is not None:
            return Response(png, headers=_verdict_headers(done), media_type="image/png")
        return _json(InspectionAnswer.given(done, png))

    given: dict[str, Any] = {
        "response_model": InspectionAnswer,
        "openapi_extra": _IMAGE_BODY,
        "responses": {
            200: {**_PNG, "description": "The verdict; with Accept: image/png the overlay, verdict in headers."}
        },
    }

    @router.post("/v1/inspect", **given)
    async def inspect(
        request: Request, inspector: InspectorName = None, name: ImageName = None, heat_map: HeatMap = None
    ) -> Response:
        """Inspects an image: the body itself, or the field "file" of a form. The verdict is in the journal."""
        return await answered(request, inspector, name, heat_map)

    @router.post("/v1/inspectors/{inspector}/inspect", **given)
    async def inspect_with(
        request: Request, inspector: str, name: ImageName = None, heat_map: HeatMap = None
    ) -> Response:
        """The same, with the inspector named in the path."""
        return await answered(request, inspector, name, heat_map)

    @router.post("/v1/batch", response_model=BatchAnswer, openapi_extra=_BATCH_BODY)
    async def batch(request: Request, inspector: InspectorName = None, heat_map: HeatMap = None) -> Response:
        """Inspects several images, the fields "file" of a form; one that fails does not fail the others."""
        station.served(inspector)
        if _media_type(request) != "multipart/form-data":
            raise RefusedError(415, "send the images as fields named file of multipart/form-data")
        limits = station.limits
        with station.admitted():
            async with request.form(max_files=limits.max_batch, max_fields=16, max_part_size=_PART_BYTES) as form:
                files = [file for file in form.getlist("file") if isinstance(file, UploadFile)]
                if not files:
                    raise RefusedError(400, "the form has no file in a field named file")
                items = [await _batch_item(station, request, file, inspector, heat_map) for file in files]
        return _json(BatchAnswer(items=tuple(items), errors=sum(item.error is not None for item in items)))

    @router.get("/v1/inspectors", response_model=InspectorsAnswer)
    def inspectors() -> InspectorsAnswer:
        """The inspectors of this station, with thresholds, promises and drift."""
        return InspectorsAnswer(inspectors=tuple(InspectorAnswer.of(station.served(name)) for name in station.names))

    return router


async def _batch_item(
    station: Station, request: Request, file: UploadFile, inspector: str | None, heat_map: str | None
) -> BatchItem:
    name = file.filename or "image"
    try:
        data = await _file_bytes(file, station.limits.max_bytes)
        done = await _judged(station, request, data, inspector, name)
    except (AndonError, RefusedError) as error:
        _, code, message = told(error)
        return BatchItem(name=plain(name), error=ErrorBody(code=code, message=message))
    png = await run_in_threadpool(overlay_png, done) if heat_map else None
    return BatchItem(name=done.entry.name, result=InspectionAnswer.given(done, png))


async def _sent_image(request: Request, max_bytes: int) -> tuple[bytes, str]:
    """An image's bytes and name, of a form or of the body itself."""
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        async with request.form(max_files=1, max_fields=16, max_part_size=_PART_BYTES) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise RefusedError(400, "the form has no file in the field named file")
            return await _file_bytes(file, max_bytes), file.filename or "image"
    if media_type not in _RAW_TYPES and not media_type.startswith("image/"):
        raise RefusedError(
            415, "send the image as the field file of multipart/form-data, or as the body with Content-Type image/… "
            "or application/octet-stream"
        )  # fmt: skip
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise RefusedError(413, f"the image has more than {max_bytes:,} bytes")
    return bytes(data), "image"


async def _file_bytes(file: UploadFile, max_bytes: int) -> bytes:
    if (file.size or 0) > max_bytes:
        raise RefusedError(413, f"the image has more than {max_bytes:,} bytes")
    return await file.read()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _judged(station: Station, request: Request, data: bytes, inspector: str | None, name: str) -> Inspected:
    """The acknowledged verdict; of a client that goes away, or waits too long, nothing is written down."""
    job = station.submit(data, inspector, name)
    waiting = asyncio.wrap_future(job.future)
    waiting.add_done_callback(_retrieved)
    gone = asyncio.create_task(_disconnected(request))
    either: set[asyncio.Future[Any]] = {waiting, gone}
    try:
        await asyncio.wait(either, timeout=station.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() or not job.give_up():
            return await waiting
    except asyncio.CancelledError:
        job.give_up()
        raise
    finally:
        gone.cancel()
    if gone.done() and not gone.cancelled():
        raise ClientDisconnect
    raise BusyError(f"no verdict within {station.limits.timeout:g} s; try again later")


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone; its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _retrieved(future: asyncio.Future[Inspected] | Future[Inspected]) -> None:
    """A failure that nobody waits for any more is no news."""
    if not future.cancelled():
        future.exception()


def overlay_png(done: Inspected) -> bytes:
    """The overlay of a verdict as a PNG file."""
    return png_bytes(overlay_image(done.served.inspector, done.verdict, done.image))


def _verdict_headers(done: Inspected) -> dict[str, str]:
    entry = done.entry
    figures = {"Score": entry.score, "P-Value": entry.p_value, "Look": entry.look, "Stop": entry.stop, "Id": entry.id}
    headers = {f"X-Andon-{name}": f"{value!r}" for name, value in figures.items() if value is not None}
    return {"X-Andon-Verdict": entry.verdict, "X-Andon-Inspector": entry.inspector, **headers}


def _json(answer: Any) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


# The journal


def _journal(station: Station) -> APIRouter:
    router = APIRouter(tags=["journal"])

    @router.get("/v1/entries", response_model=EntriesAnswer)
    def entries(
        inspector: InspectorName = None,
        verdict: Annotated[list[VerdictName] | None, Query(description="Repeatable.")] = None,
        since: Seconds = None,
        until: Seconds = None,
        reviewed: bool | None = None,
        before: Annotated[int | None, Query(ge=1, le=2**53, description="Of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> EntriesAnswer:
        """Verdicts, the newest first, page by page."""
        found = station.journal.entries(
            inspector=inspector, verdicts=verdict or (), since=since, until=until, reviewed=reviewed, before=before,
            limit=limit + 1,
        )  # fmt: skip
        shown = tuple(EntryAnswer.of(entry) for entry in found[:limit])
        return EntriesAnswer(entries=shown, next=shown[-1].id if len(found) > limit else None)

    @router.get("/v1/entries/{entry}", response_model=EntryAnswer)
    def entry_of(entry: EntryId) -> EntryAnswer:
        """One verdict."""
        return EntryAnswer.of(station.journal.entry(entry))

    @router.get("/v1/entries/{entry}/image", response_class=Response, responses={200: _IMAGE})
    def image(entry: EntryId) -> Response:
        """The image as it was sent, where it is kept."""
        station.journal.entry(entry)
        data = station.image(entry)
        if data is None:
            raise RefusedError(404, "the image of this entry is not kept")
        return Response(data, headers={"Content-Disposition": "attachment"}, media_type="application/octet-stream")

    @router.get("/v1/entries/{entry}/heat-map", response_class=Response, responses={200: _PNG})
    def heat_map(entry: EntryId) -> Response:
        """The overlay of an entry whose image is kept and whose model is still at the station."""
        with station.admitted():
            return Response(overlay_png(station.look_again(entry)), media_type="image/png")

    @router.post("/v1/entries/{entry}/review", response_model=ReviewAnswer, status_code=201)
    def review(entry: EntryId, said: ReviewRequest) -> ReviewAnswer:
        """Confirms or overrules a verdict; earlier reviews stay in the journal, the last one counts."""
        return review_answer(station.review(entry, said.word, said.who, said.note))

    @router.get("/v1/labels.csv", response_class=StreamingResponse, responses={200: {"content": {"text/csv": {}}}})
    def labels(inspector: InspectorName = None) -> StreamingResponse:
        """Reviewed entries as a table."""
        headers = {"Content-Disposition": 'attachment; filename="labels.csv"'}
        return StreamingResponse(_csv(station, inspector), headers=headers, media_type="text/csv; charset=utf-8")

    return router


def _csv(station: Station, inspector: str | None) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.DictWriter(line, LABEL_COLUMNS)
    writer.writeheader()
    for label in station.journal.labels(inspector):
        writer.writerow({name: _inert(value) for name, value in label.items()})
        if line.tell() > 2**16:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
    yield line.getvalue()


def _inert(value: Any) -> Any:
    """A text that a spreadsheet takes for no formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


# The state, and who may come in


def _state(station: Station, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["state"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", response_model=HealthAnswer)
    async def healthz() -> HealthAnswer:
        """The process is alive."""
        return HealthAnswer()

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", response_model=ReadyAnswer)
    def readyz() -> ReadyAnswer:
        """Images are taken: models loaded, the journal writable, room in the queue."""
        reasons = station.not_ready()
        if reasons:
            raise RefusedError(503, public("; ".join(reasons)), "not_ready")
        return ReadyAnswer(inspectors=station.names)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def figures() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _session(tokens: Tokens) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.api_route("/login", methods=["GET", "HEAD"])
    def ask(request: Request, next: str = "/", failed: str = "") -> Response:
        """The page that asks for a token."""
        place = next if _own_place(next) else "/"
        words = "This token is not one of the station’s." if failed else ""
        return render_page("login.html.j2", request, 401 if failed else 200, next=place, failed=words)

    @router.post("/login")
    async def login(request: Request) -> Response:
        """Gives the page's visitor a cookie for a token."""
        async with request.form(max_files=0, max_fields=4, max_part_size=4096) as form:
            token, place = str(form.get("token", "")), str(form.get("next", "/"))
        given = token.strip().encode("utf-8", "replace")
        if not tokens.accepts(given):
            return RedirectResponse("/login?failed=1", 303)
        answer = RedirectResponse(place if _own_place(place) else "/", 303)
        answer.set_cookie(
            COOKIE, tokens.session(given), max_age=SESSION_SECONDS, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    @router.post("/logout")
    async def logout() -> Response:
        """Takes the cookie back."""
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return router


def _own_place(place: str) -> bool:
    """Whether it is a path of this station, and no other site's address in disguise."""
    return place.startswith("/") and place[1:2] not in ("/", "\\") and place.isprintable() and place.isascii()

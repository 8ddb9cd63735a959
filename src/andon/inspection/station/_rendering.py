"""How the page's answers are made: templates, files that stand beside them, and what goes wrong, in a page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from andon.core import AndonError, DataError
from andon.inspection.station import _views as views
from andon.inspection.station._errors import RefusedError, error_response, fault, told
from andon.inspection.station.errors import UnknownError

__all__ = ["PageRoute", "fault_in_a_page", "render_page", "root_of", "static_file", "to"]

_STATIC = {
    "station.css": "text/css",
    "theme.js": "text/javascript",
    "layers.js": "text/javascript",
    "inspect.js": "text/javascript",
    "entry.js": "text/javascript",
    "improve.js": "text/javascript",
    "thresholds.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def render_page(template: str, request: Request, status: int = 200, **values: Any) -> HTMLResponse:
    """A page for the browser, as ``login.html.j2`` for the service's login.

    Args:
        template: its file's name.
        request: that it answers.
        status: of the answer.
        values: of the template; the frame's have defaults.
    """
    frame = {"root": root_of(request), "version": _version(), "names": (), "inspector": "", "links": (), "place": "/",
             "model": "", "message": None, "zone": views.zone(), "leave": False}  # fmt: skip
    text = _environment().get_template(template).render(frame | values)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


class PageRoute(APIRoute):
    """A route of the page: what goes wrong is said in a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except AndonError as error:
                return _failed(request, error)
            except RequestValidationError as error:
                return _failed(request, RefusedError(422, fault(error.errors())))

        return handled


_NOT_DONE = "This cannot be done"
_TITLES = {404: "Not here", 503: "Not now"}
_SAID = {
    404: "The station has no page at this address.",
    405: "This address takes what a page sends, and shows nothing.",
}


def fault_in_a_page(request: Request, error: Exception) -> Response | None:
    """The page for a browser at an address that is none of the station's; None for what is told otherwise."""
    if not isinstance(error, HTTPException) or isinstance(error, RefusedError) or error.status_code not in _SAID:
        return None
    if "text/html" not in request.headers.get("accept", ""):
        return None
    status, text = error.status_code, _SAID[error.status_code]
    answer = render_page("error.html.j2", request, status, title=_TITLES.get(status, _NOT_DONE), text=text)
    answer.headers.update(error.headers or {})
    return answer


def _failed(request: Request, error: AndonError | RefusedError) -> Response:
    status, _, text = told(error)
    if "x-part" in request.headers or request.url.path.endswith((".png", ".jpg", "/latest")):
        return error_response(error)
    title = "This image cannot be inspected" if isinstance(error, DataError) else _TITLES.get(status, _NOT_DONE)
    return render_page("error.html.j2", request, status, title=title, text=text)


def static_file(name: str) -> Response:
    if name not in _STATIC:
        raise UnknownError("there is no such file")
    return Response(_asset(name), media_type=_STATIC[name], headers={"Cache-Control": "max-age=3600"})


@cache
def _asset(name: str) -> bytes:
    return resources.files("andon.inspection.station").joinpath("static", name).read_bytes()


@cache
def _version() -> str:
    """Of the static files: browsers keep them, and get the new ones of another version."""
    return hashlib.blake2b(b"".join(map(_asset, _STATIC)), digest_size=6).hexdigest()


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("andon", "inspection/station/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def root_of(request: Request) -> str:
    """Where the page is mounted, behind a proxy too."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def to(request: Request, address: str) -> Response:
    return RedirectResponse(f"{root_of(request)}{address}", 303)

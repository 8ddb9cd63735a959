"""Errors as the service tells them: a status, a word for programs, a sentence for people; nothing of the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from andon.core import AndonError, ConfigError, DataError
from andon.inspection.station.errors import BusyError, UnknownError

__all__ = ["RefusedError", "error_response", "fault", "public", "told"]

_PATH = re.compile(r"(?:[A-Za-z]:)?[/\\](?:[^\s:/\\]+[/\\])+")
_LONGEST = 500
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    503: "unavailable",
}
_RETRY_SECONDS = "1"


class RefusedError(HTTPException):
    """A request that is answered with an error; FastAPI and Starlette let it through where they read bodies."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code or _CODES[status]


def told(error: Exception) -> tuple[int, str, str]:
    """(status, word, sentence) of an error; of one that nobody expected nothing but that it was one."""
    if isinstance(error, RefusedError):
        return error.status_code, error.code, error.detail
    if isinstance(error, HTTPException):
        status = error.status_code
        return status, _CODES.get(status, "error"), str(error.detail or HTTPStatus(status).phrase)
    if isinstance(error, DataError):
        return 422, "image_refused", public(str(error))
    if isinstance(error, UnknownError):
        return 404, "not_found", public(str(error))
    if isinstance(error, BusyError):
        return 503, "busy", public(str(error))
    if isinstance(error, ConfigError):
        return 400, "bad_request", public(str(error))
    if isinstance(error, AndonError):  # the journal, or a file of the station's
        return 503, "unavailable", public(str(error))
    return 500, "internal", "an error of the server's own; its log has more"


def error_response(error: Exception) -> Response:
    """The answer that tells an error."""
    status, code, message = told(error)
    headers = dict(getattr(error, "headers", None) or {})
    if status in (429, 503):
        headers.setdefault("Retry-After", _RETRY_SECONDS)
    body = json.dumps({"error": {"code": code, "message": message[:_LONGEST]}})
    return Response(body, status, headers, media_type="application/json")


def public(message: str) -> str:
    """A message without the folders of the machine's paths."""
    return _PATH.sub("", message)


def fault(errors: Sequence[Any]) -> str:
    """The first thing that is wrong with a request's parameters or body; without what was sent."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where[:100]}: {str(first['msg']).removeprefix('Value error, ')}"

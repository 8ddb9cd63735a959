"""What stands in front of every request: who may come in, how much may be sent, and how long that may take.

Plain ASGI, outermost first: ``Outside`` (headers, figures, no error leaves as anything but JSON), ``Door`` (host,
origin, token, rate), ``Intake`` (bytes and seconds of a body).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from andon.inspection.station._auth import COOKIE, Tokens
from andon.inspection.station._errors import RefusedError, error_response

__all__ = ["Door", "Intake", "Outside", "TokenBucket", "is_loopback"]

_log = logging.getLogger(__name__)

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none at all, the page's own forms would have the origin "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/healthz", "/readyz", "/login", "/favicon.ico")
"""Paths that need no token; so do those below ``/static/``."""
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_WRITE_SECONDS = 30.0
_SMALL_BODY = 2**16
_MOST_CLIENTS = 10_000


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Outside:
    """Security headers on every answer, figures of every request, JSON for every error; a client that reads too slowly
    is let go.

    Args:
        observed: gets route, method, status and seconds of every request.
    """

    def __init__(self, app: ASGIApp, observed: Callable[[str, str, int, float], None]) -> None:
        self.app, self.observed = app, observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            async with asyncio.timeout(_WRITE_SECONDS):
                await send(message)

        try:
            await self.app(scope, receive, sent)
        except ClientDisconnect:
            status = 499  # nobody is there to be answered
        except TimeoutError:
            _log.warning("a client did not read its answer within %g s", _WRITE_SECONDS)
        except Exception as error:
            _log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            if not status:
                await error_response(error)(scope, receive, sent)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.observed(str(route), scope["method"], status, time.perf_counter() - started)


class Door:
    """Lets in what may come in.

    Args:
        tokens: that open it; none: no token is asked for.
        hosts: names that the request's Host may have; None for any. Without it, a page of another site could reach a
            service on this machine under a name of its own (DNS rebinding).
        bucket: of requests that a client may send; None for any number.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, hosts: Collection[str] | None, bucket: TokenBucket | None) -> None:
        self.app, self.tokens, self.hosts, self.bucket = app, tokens, hosts, bucket
        self.attempts = TokenBucket(1.0, 5.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            answer = self._check(scope, headers)
        except RefusedError as error:
            answer = error_response(error)
        await (self.app if answer is None else answer)(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """RefusedError, or an answer, for what may not come in."""
        client = (scope.get("client") or ("",))[0]
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            raise RefusedError(400, "this host name is not this station's; allow it with --allow-host", "wrong_host")
        by_token = "authorization" in headers
        if scope["method"] not in _SAFE and not by_token:
            _check_origin(headers, host)
        if self.bucket is not None and not self.bucket.take(client):
            raise RefusedError(429, "too many requests; try again later")
        if scope["path"] == "/login" and scope["method"] == "POST" and not self.attempts.take(client):
            raise RefusedError(429, "too many attempts; try again later")
        if not self.tokens or scope["path"] in _OPEN or scope["path"].startswith("/static/"):
            return None
        if self._known(headers):
            scope.setdefault("state", {})["by_cookie"] = not by_token  # the page offers to log out
            return None
        if not by_token and scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        raise RefusedError(401, "a token is needed: Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"})

    def _known(self, headers: Headers) -> bool:
        given = headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            return scheme.lower() == "bearer" and self.tokens.accepts(token.strip().encode("latin-1", "replace"))
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and self.tokens.holds(morsel.value)


def local_hosts(names: Collection[str]) -> frozenset[str]:
    """Hosts of a service that this machine alone can reach, and further names that a proxy gives it."""
    return frozenset({*_LOCAL_HOSTS, *(name.lower() for name in names)})


def _name(host: str) -> str:
    """ "[::1]:8000" is "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _check_origin(headers: Headers, host: str) -> None:
    """What changes something comes from a page of this station, or from no page at all."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise RefusedError(403, "the request comes from a page of another site", "other_origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "the request comes from a page of another site", "other_origin")


class TokenBucket:
    """``rate`` a second for each client, and ``burst`` at once. Those not seen for longest are forgotten."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """One for a client, if there is one left."""
        now = self.clock()
        left, at = self._left.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - at) * self.rate)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1


class Intake:
    """Counts a body while it comes, before it is anywhere as a whole.

    Args:
        most: bytes of the largest body, by the end of the path: ``{"/inspect": …}``; of others 64 KiB.
        in_all: bytes of all bodies that are held at a time.
        seconds: within which a body has to be there.
    """

    def __init__(self, app: ASGIApp, most: dict[str, int], in_all: int, seconds: float) -> None:
        self.app, self.most, self.in_all, self.seconds = app, most, in_all, seconds
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = next((n for end, n in self.most.items() if scope["path"].endswith(end)), _SMALL_BODY)
        body = _Body(self, receive, most)
        try:
            body.check_length(Headers(scope=scope).get("content-length"))
            await self.app(scope, body.receive, send)
        except RefusedError as error:
            await error_response(error)(scope, receive, send)
        finally:
            self.held -= body.held


class _Body:
    """One request's body."""

    def __init__(self, intake: Intake, receive: Receive, most: int) -> None:
        self.intake, self.inner, self.most = intake, receive, most
        self.held = 0
        self.complete = False
        self.until = time.monotonic() + intake.seconds

    def check_length(self, length: str | None) -> None:
        if length is not None and length.isascii() and length.isdigit() and int(length[:20]) > self.most:
            self._too_large()

    async def receive(self) -> Message:
        if self.complete:
            return await self.inner()
        try:
            async with asyncio.timeout(max(0.0, self.until - time.monotonic())):
                message = await self.inner()
        except TimeoutError:
            raise RefusedError(
                408, f"the body was not there within {self.intake.seconds:g} s", headers={"Connection": "close"}
            ) from None
        size = len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        self.held += size
        self.intake.held += size
        if self.held > self.most:
            self._too_large()
        if self.intake.held > self.intake.in_all:
            raise RefusedError(503, "too much is being sent at the moment; try again later", "busy")
        return message

    def _too_large(self) -> None:
        raise RefusedError(413, f"the body has more than {self.most:,} bytes")

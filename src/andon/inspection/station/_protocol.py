"""uvicorn's server and protocol with the patience of a station: not endless with clients, graceful at its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEADER_SECONDS", "MOST_CONNECTIONS", "PatientProtocol", "StationServer"]

HEADER_SECONDS = 10.0
"""Within which the head of a request has to be there, from its first byte or from the connection on."""
MOST_CONNECTIONS = 512
_BAD_REQUEST = b'{"error": {"code": "bad_request", "message": "this is no HTTP request"}}'


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no request comes to be: uvicorn's own timeout is for those only that
    are silent after an answer, and would wait for ever for one that sends its head byte by byte."""

    def connection_made(self, transport: Any) -> None:
        self._head_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or not (self.cycle is None or self.cycle.response_complete):
            self._stop_waiting()
        else:
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """As JSON, like every error of the service."""
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(_BAD_REQUEST)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + _BAD_REQUEST)
        self.transport.close()

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEADER_SECONDS, self._close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


class StationServer(uvicorn.Server):
    """A server that ends with exit code 0 on SIGTERM and SIGINT; a second signal ends it at once.

    Args:
        config: of uvicorn.
        ready: called when it answers.
        ending: called when a signal has come.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._ending = ready, ending

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signals again at its end: the process would die of them."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._ending()

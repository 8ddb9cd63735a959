"""A station from its files to its end: what ``andon serve`` does."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from andon._tools.text import first_line
from andon.core import ConfigError
from andon.inspection.station._auth import Tokens, readable_by_others
from andon.inspection.station.limits import Limits, Retention
from andon.inspection.station.outbox import Output
from andon.inspection.station.station import Station

__all__ = ["ServeOptions", "serve"]

TOKENS = "ANDON_TOKENS"
"""Environment variable of tokens, separated by spaces or commas."""
_BACKLOG = 256
_KEEP_ALIVE_SECONDS = 30
_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@dataclass(frozen=True)
class ServeOptions:
    """What a service needs to know beside its inspectors.

    Attributes:
        host, port: where it listens; port 0 for any that is free.
        folder: of the journal and of what waits to be sent.
        token_file: of tokens, one a line; beside those of the environment.
        allowed_hosts: further names that requests may call the station by.
        limits, retention: as they say.
        outputs: to the line.
        threads: of torch; None for its own choice.
        flush: seconds that what waits to be sent gets at the end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    folder: Path = Path("station")
    token_file: Path | None = None
    allowed_hosts: Collection[str] = ()
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)
    outputs: Sequence[Output] = ()
    threads: int | None = None
    flush: float = 10.0


def serve(inspectors: Mapping[str, Path], options: ServeOptions, said: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; then requests in flight are finished, and what waits to be sent is sent.

    Args:
        inspectors: files by name.
        options: the rest.
        said: gets lines for the one who started it; the first ends with the address.

    Raises:
        AndonError: a package is missing, an address that needs a token or is taken, a file or folder that does not do.
    """
    for package in _PACKAGES:
        _need(package)
    from andon.inspection.station._guard import is_loopback, local_hosts

    tokens = Tokens.of(options.token_file, os.environ.get(TOKENS))
    if options.token_file is not None and readable_by_others(options.token_file):
        said(f"{options.token_file}: others may read it; chmod 600 keeps the tokens to you")
    local = is_loopback(options.host)
    if not (local or tokens):
        raise ConfigError(
            f"--host {options.host}: others than this machine could reach it; give --token-file, or set {TOKENS}"
        )
    hosts = local_hosts({*options.allowed_hosts, options.host}) if local or options.allowed_hosts else None
    listener = _listener(options.host, options.port)
    try:
        if options.threads is not None:
            import torch

            torch.set_num_threads(options.threads)
        station = Station(
            inspectors,
            options.folder,
            limits=options.limits,
            retention=options.retention,
            outputs=options.outputs,
        )
        try:
            _run(station, tokens, hosts, listener, options, said)
        finally:
            station.close(options.flush)
    finally:
        listener.close()


def _run(
    station: Station,
    tokens: Tokens,
    hosts: Collection[str] | None,
    listener: socket.socket,
    options: ServeOptions,
    said: Callable[[str], None],
) -> None:
    import uvicorn

    from andon.inspection.station._protocol import PatientProtocol, StationServer
    from andon.inspection.station.service import create_app

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    for message in station.journal.messages:
        said(message)
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        create_app(station, tokens=tokens, hosts=hosts),
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(station.limits.timeout) + 5,
    )
    server = StationServer(config, lambda: said(f"{', '.join(station.names)} at {address}"), station.drain)
    server.run([listener])
    said("ended: requests in flight were finished")


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens: nobody else takes the port while models are loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Where the protocol is not named, asyncio does not switch Nagle's algorithm off: 40 ms an answer.
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: is no address of this machine ({first_line(error)})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigError(f"--host {host} --port {port}: {reason}; give another --port") from error
    return listener


def _need(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"this needs {package} ({first_line(error)}): pip install 'andon[serve]'") from error

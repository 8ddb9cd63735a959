"""Real servers for tests: in a thread of this process, or ``andon serve`` in one of its own."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from andon.inspection.station._protocol import PatientProtocol
from andon.inspection.station.running import _listener
from andon.inspection.station.service import create_app
from andon.inspection.station.station import Station
from tests.inspection.parts import part

TOKEN = "a-token-that-nobody-guesses"


def image_bytes(seed: int, *, defect: bool = False, kind: str = "PNG") -> bytes:
    """A part's image as a file."""
    out = io.BytesIO()
    Image.fromarray(part(seed, defect=defect)).save(out, format=kind)
    return out.getvalue()


@contextmanager
def served(station: Station, **options: Any) -> Iterator[str]:
    """The address of a station that is served, on a port of its own."""
    listener = _listener("127.0.0.1", 0)
    config = uvicorn.Config(
        create_app(station, **options), http=PatientProtocol, ws="none", lifespan="off", log_config=None,
        access_log=False,
        server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Command:
    """``andon serve`` in a process of its own."""

    def __init__(self, *arguments: str | Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "andon", "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def address(self, seconds: float = 60) -> str:
        """Where it answers, once it does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            found = re.search(r"at (http://\S+)", "".join(self.lines))
            if found:
                return found[1]
            time.sleep(0.02)
        raise AssertionError(f"it does not serve: {self.output()}")

    def ended(self, seconds: float = 60) -> int:
        """Its exit code."""
        code = self.process.wait(seconds)
        self._reading.join(5)
        return code

    def output(self) -> str:
        return "".join(self.lines)


@contextmanager
def command(*arguments: str | Path, environment: dict[str, str]) -> Iterator[Command]:
    """A running ``andon serve``; it does not outlive the block."""
    running = Command(*arguments, environment=environment)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.ended()

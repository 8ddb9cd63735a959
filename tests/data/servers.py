"""A web server of this machine that behaves badly in ways that are asked for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """Serves ``files`` by their path.

    Attributes:
        breaks: the connection breaks after so many bytes; one number a request, then none.
        ranges: whether it goes on in the middle of a file.
        answers: status codes given instead, one a request.
        asked: (path, Range) of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    answers: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def record(self, number: int, files: dict[str, bytes], digests: dict[str, str] | None = None) -> None:
        """A record of Zenodo."""
        entries = []
        for name, data in files.items():
            md5 = (digests or {}).get(name) or hashlib.md5(data, usedforsecurity=False).hexdigest()
            entries.append({"key": name, "size": len(data), "checksum": f"md5:{md5}"})
            self.files[f"/api/records/{number}/files/{name}/content"] = data
        self.files[f"/api/records/{number}"] = json.dumps({"files": entries}).encode()


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if state.answers:
                return self.reply(state.answers.pop(0), b"", {"Retry-After": "0"})
            data = state.files.get(self.path)
            if data is None:
                return self.reply(404, b"", {})
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start and start >= len(data):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            extra = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
            return self.reply(206 if start else 200, data[start:], extra)

        def reply(self, code: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if state.breaks and code < 300:
                data = data[: state.breaks.pop(0)]
                self.close_connection = True
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The station: from good images to a served verdict, latency through HTTP, and load with malformed requests.

    python benchmarks/bench_station.py [--requests 5000] [--concurrency 16] [--latencies 500] [--threads N] [--write]

``--images`` good 400×400 images are made, an inspector is trained on them (``--method``), and ``andon serve`` is
started with it in a process of its own. Measured: seconds of training, and from the start of that process to its first
verdict; p50 and p99 of single requests one after the other on one connection (JPEG and PNG bodies, forms); then
``--requests`` requests from ``--concurrency`` clients, every tenth malformed, each in another way: answers that are not
what they should be, lost connections, and the process's memory at the start and at its peak. At the end every
acknowledged id must be in the journal.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import io
import json
import os
import platform
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from andon.inspection import train_inspector

RESULTS = Path(__file__).parent / "results" / "station.md"
SIZE = 400
RAW = {"Content-Type": "application/octet-stream"}


def part(seed: int, defect: bool = False) -> np.ndarray:
    """A textured part under noise, RGB uint8 ``[400, 400, 3]``."""
    ground = np.random.default_rng(0).integers(60, 180, (25, 25, 3)).repeat(16, 0).repeat(16, 1)
    image = ground + np.random.default_rng([1, seed]).normal(0, 8, ground.shape)
    if defect:
        image[180:230, 200:240] = (230, 30, 30)
    return image.clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format=kind, **({"quality": 90} if kind == "JPEG" else {}))
    return out.getvalue()


def as_form(data: bytes) -> tuple[dict[str, str], bytes]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return {"Content-Type": "multipart/form-data; boundary=b"}, head + data + b"\r\n--b--\r\n"


class Server:
    """``andon serve`` in a process of its own."""

    def __init__(self, file: Path, folder: Path, threads: int | None) -> None:
        command = [sys.executable, "-m", "andon", "serve", str(file), "--folder", str(folder), "--port", "0"]
        command += [] if threads is None else ["--threads", str(threads)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("".join(self.lines))
        threading.Thread(target=self.lines.extend, args=(self.process.stdout,), daemon=True).start()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def memory(self) -> tuple[float, float]:
        """MB at the moment, and at the peak so far."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            now = psutil.Process(self.process.pid).memory_info().rss / 2**20
            return now, now
        found = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status.read_text()))
        return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def asked(
    connection: http.client.HTTPConnection, headers: dict[str, str], body: bytes, path: str = "/v1/inspect"
) -> tuple[int, dict[str, object]]:
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def latencies(server: Server, count: int) -> dict[str, np.ndarray]:
    """Milliseconds of requests one after the other, and what the station says of them, ``[count, 2]``, by how the image
    is sent."""
    jpeg, png = encoded(part(100), "JPEG"), encoded(part(100), "PNG")
    ways = {"JPEG, body": (RAW, jpeg), "PNG, body": (RAW, png), "JPEG, form": as_form(jpeg)}
    connection, found = server.connection(), {}
    for way, (headers, body) in ways.items():
        times = []
        for number in range(count + 20):
            start = time.perf_counter()
            status, answer = asked(connection, headers, body)
            assert status == 200
            if number >= 20:
                times.append((1000 * (time.perf_counter() - start), float(str(answer["milliseconds"]))))
        found[way] = np.asarray(times)
    return found


def malformed() -> list[tuple[str, dict[str, str], bytes, int]]:
    """(path, headers, body, the status that it deserves) of requests that are none."""
    jpeg = encoded(part(101), "JPEG")
    form, body = as_form(jpeg)
    small = encoded(part(102)[:100, :333], "PNG")
    return [
        ("/v1/inspect", RAW, b"no image at all", 422),
        ("/v1/inspect", RAW, jpeg[: len(jpeg) // 2], 422),
        ("/v1/inspect", RAW, b"", 422),
        ("/v1/inspect", RAW, small, 422),
        ("/v1/inspect", {"Content-Type": "application/json"}, b"{}", 415),
        ("/v1/inspect", form, body.replace(b'"file"', b'"life"'), 400),
        ("/v1/inspect", form, body[: len(body) // 2], 400),
        ("/v1/inspect?inspector=nobody", RAW, jpeg, 404),
        ("/v1/inspect?heat_map=bmp", RAW, jpeg, 422),
        ("/v1/inspect", RAW, bytes(2**25 + 2**17), 413),
    ]


class Load:
    """Requests from several clients, every tenth malformed.

    Attributes:
        ids: acknowledged.
        wrong: answers that are not what they should be, lost connections.
        seconds: in all.
    """

    def __init__(self, server: Server, requests: int, concurrency: int) -> None:
        self.server, self.ids, self.wrong = server, list[int](), list[str]()
        self.times: list[float] = []
        self._next, self._lock, self._requests = 0, threading.Lock(), requests
        self._good = [encoded(part(200 + k, defect=k % 7 == 0), "JPEG") for k in range(20)]
        self._bad = malformed()
        threads = [threading.Thread(target=self._client) for _ in range(concurrency)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.perf_counter() - start

    def _client(self) -> None:
        connection = self.server.connection()
        while True:
            with self._lock:
                number, self._next = self._next, self._next + 1
            if number >= self._requests:
                return
            path, headers, body, expected = "/v1/inspect", RAW, self._good[number % len(self._good)], 200
            if number % 10 == 9:
                path, headers, body, expected = self._bad[number // 10 % len(self._bad)]
            start = time.perf_counter()
            try:
                status, answer = asked(connection, headers, body, path)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.wrong.append(f"{path} {expected}: {error!r}")
                connection.close()
                continue
            self.times.append(1000 * (time.perf_counter() - start))
            if status != expected:
                self.wrong.append(f"{path}: {status} instead of {expected}: {str(answer)[:200]}")
            elif status == 200:
                self.ids.append(int(str(answer["id"])))


def journal_ids(folder: Path) -> set[int]:
    with contextlib.closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        return {row[0] for row in db.execute("SELECT id FROM entries")}


def measured(options: argparse.Namespace, folder: Path) -> list[str]:
    start = time.perf_counter()
    train_inspector([part(seed) for seed in range(options.images)], options.method).save(folder / "part.andon")
    trained = time.perf_counter() - start
    first = encoded(part(99), "JPEG")
    start = time.perf_counter()
    server = Server(folder / "part.andon", folder / "station", options.threads)
    assert asked(server.connection(), RAW, first)[0] == 200
    served = time.perf_counter() - start
    lines = [
        f"{options.images} good {SIZE}×{SIZE} images to a calibrated file with `{options.method}`: {trained:.1f} s; "
        f"from the start of `andon serve` to the first verdict through HTTP: {served:.1f} s; together "
        f"{trained + served:.1f} s.",
        "",
        f"| one request at a time ({options.latencies} each) | p50, ms | p99, ms | p99 ÷ p50 | of it decoding and "
        "inspecting, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for way, times in latencies(server, options.latencies).items():
        p50, p99 = np.percentile(times[:, 0], [50, 99])
        inside = np.median(times[:, 1])
        lines.append(f"| {way} | {p50:.1f} | {p99:.1f} | {p99 / p50:.1f} | {inside:.1f} |")
    rest, _ = server.memory()
    load = Load(server, options.requests, options.concurrency)
    now, peak = server.memory()
    code = server.end()
    lost = set(load.ids) - journal_ids(folder / "station")
    p50, p99 = np.percentile(load.times, [50, 99])
    lines += [
        "",
        f"{options.requests} requests at concurrency {options.concurrency}, every tenth malformed: {len(load.wrong)} "
        f"errors, {len(load.ids)} verdicts acknowledged, {len(lost)} of them not in the journal, "
        f"{options.requests / load.seconds:.0f} requests a second, p50 {p50:.0f} ms, p99 {p99:.0f} ms. Memory of the "
        f"process: {rest:.0f} MB before, {now:.0f} MB after, {peak:.0f} MB at the peak. Exit code {code}.",
    ]
    lines += [f"- {text}" for text in load.wrong[:20]]
    if any("Traceback" in line for line in server.lines):
        lines.append("**There was a traceback in the log.**")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--latencies", type=int, default=500)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--method", default="patchcore")
    parser.add_argument("--threads", type=int, help="of the model")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    threads = "" if options.threads is None else f" --threads {options.threads}"
    lines = [
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}, load average at the "
        f"start {load:.1f} on {os.cpu_count()} cores. `python benchmarks/bench_station.py --requests "
        f"{options.requests} --concurrency {options.concurrency} --latencies {options.latencies}"
        f" --images {options.images} --method {options.method}{threads}`",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines += measured(options, Path(folder))
    print("\n".join(lines))
    if options.write:
        new = "" if RESULTS.exists() else "# The station's speed and load\n\n"
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(new + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()

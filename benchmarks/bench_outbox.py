"""A broker that is away, and a station killed while messages wait: what arrives, and how fast the queue is.

    python benchmarks/bench_outbox.py [--away 300] [--rate 10] [--write]

Needs mosquitto. A station's outbox queues ``--rate`` messages a second; after 10 s the broker is killed and stays away
for ``--away`` seconds; in the middle of that the sending process is killed -9 and started again. Counted at a
subscriber: messages that were acknowledged and did not arrive, twins, and places where the order is not kept. Then:
messages a second with an output that does nothing, and through the broker.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho

from andon.inspection.station.outputs import MqttOutput, Outbox

RESULTS = Path(__file__).parent / "results" / "outbox.md"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")


def station(path: Path, port: int, first: int, rate: float) -> None:
    """Puts numbered messages until it is killed, and says each number once it is on the disk."""
    box = Outbox(path, [MqttOutput("127.0.0.1", port, "line")])
    begun = time.monotonic()
    for n in itertools.count():
        time.sleep(max(0.0, begun + n / rate - time.monotonic()))
        box.put({"n": first + n})
        print(first + n, flush=True)


class Station:
    """That process, from outside."""

    def __init__(self, path: Path, port: int, first: int, rate: float) -> None:
        self.acknowledged: list[int] = []
        command = [sys.executable, __file__, "--station", str(path), str(port), str(first), str(rate)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.acknowledged += [int(line) for line in self._process.stdout if line.endswith("\n")]

    def kill(self) -> list[int]:
        """-9; what it had acknowledged."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        return self.acknowledged


def broker(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Starts mosquitto, as it is; sessions are kept on the disk so that the subscriber misses nothing."""
    assert MOSQUITTO is not None
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n"
        f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
    )
    process = subprocess.Popen([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)
    raise SystemExit("mosquitto does not start")


def subscriber(port: int, got: list[dict[str, Any]]) -> paho.Client:
    """Listens, and comes back quickly when the broker does."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "listener", clean_session=False)
    client.reconnect_delay_set(1, 1)
    ready = threading.Event()
    client.on_connect = lambda client, *_: client.subscribe("line", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: got.append(json.loads(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    if not ready.wait(10):
        raise SystemExit("the subscriber does not get through")
    return client


def absence(folder: Path, port: int, away: float, rate: float) -> list[str]:
    """The broker away, the station killed in the middle; lines of the report."""
    got: list[dict[str, Any]] = []
    there, path = broker(folder, port), folder / "outbox.sqlite"
    listener, begun = subscriber(port, got), time.monotonic()
    first = Station(path, port, 0, rate)
    time.sleep(10)
    there.kill()
    there.wait()
    time.sleep(away / 2)
    acknowledged = first.kill()
    second = Station(path, port, 10**6, rate)
    time.sleep(away / 2)
    there, back = broker(folder, port), time.monotonic()
    waiting = len(acknowledged) + len(second.acknowledged) - len({told["n"] for told in got})
    while {told["n"] for told in got} < {*acknowledged, *second.acknowledged} and time.monotonic() < back + 120:
        time.sleep(0.05)
    caught_up = time.monotonic() - back
    time.sleep(5)
    acknowledged = acknowledged + second.kill()
    time.sleep(2)
    box = Outbox(path, [MqttOutput("127.0.0.1", port, "line")])
    box.flush(60)
    box.close()
    time.sleep(2)
    listener.disconnect()
    listener.loop_stop()
    there.kill()
    there.wait()
    order = list(dict.fromkeys(told["n"] for told in got))
    lost = len(set(acknowledged) - set(order))
    disorder = sum(a > b for a, b in itertools.pairwise(order))
    return [
        f"A broker away for {away:.0f} s, {rate:g} messages a second, the station killed -9 and started again in the "
        f"middle of it ({time.monotonic() - begun:.0f} s in all):",
        "",
        "| acknowledged by put | arrived | lost | twins | out of order | waiting when the broker came back | "
        "caught up after |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        f"| {len(acknowledged)} | {len(order)} | {lost} | {len(got) - len(order)} | {disorder} | {waiting} | "
        f"{caught_up:.1f} s |",
        "",
    ]


class Nobody:
    """An output that takes all and does nothing with it."""

    name = "nobody"

    def send(self, message: object) -> None:
        """Done."""

    def close(self) -> None:
        """Nothing to end."""


def speed(folder: Path, port: int, count: int = 2000) -> list[str]:
    """Messages a second; a line of the report."""
    there = broker(folder, port)
    message = {"type": "verdict", "verdict": "pass", "score": 1.0, "regions": [{"x": 1, "y": 2}] * 5}
    rates = []
    for name, output in (("put", Nobody()), ("line", MqttOutput("127.0.0.1", port, "line"))):
        box, begun = Outbox(folder / f"{name}.sqlite", [output]), time.perf_counter()
        for _ in range(count):
            box.put(message)
        box.flush(120)
        rates.append(count / (time.perf_counter() - begun))
        box.close()
    there.kill()
    there.wait()
    return [
        f"Messages a second, one thread that queues: {rates[0]:,.0f} with an output that does nothing, {rates[1]:,.0f} "
        f"through MQTT with QoS 1, acknowledged one by one by a broker on the same machine.",
        "",
    ]


def main() -> None:
    if sys.argv[1:2] == ["--station"]:
        station(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", type=float, default=300)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if MOSQUITTO is None:
        raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
    port = random.randrange(20_000, 32_000)  # none of those that systems give to clients while the broker is away
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            "# The queue to the line",
            "",
            f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores. "
            f"`python benchmarks/bench_outbox.py --away {options.away:g} --rate {options.rate:g}`",
            "",
            *absence(Path(folder), port, options.away, options.rate),
            *speed(Path(folder), port),
        ]
    print("\n".join(lines))
    if options.write:
        RESULTS.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

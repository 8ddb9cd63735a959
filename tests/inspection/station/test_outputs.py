"""Receivers at the line: a real HTTP server and a real broker that go away and come back; addresses; messages."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import ConfigError
from andon.inspection.inspector import Box
from andon.inspection.station.journal import Entry
from andon.inspection.station.monitor import DriftMonitor
from andon.inspection.station.outputs import (
    Message,
    MqttOutput,
    Outbox,
    OutputError,
    QueueLimits,
    WebhookOutput,
    drift_message,
    parse_mqtt,
    parse_webhook,
    secret_of,
    signature,
    verdict_message,
)

QUICK = QueueLimits(first_wait=0.02, longest_wait=0.1, tries=3)
MESSAGE = Message("box-1", b'{"message_id": "box-1", "n": 1}')


def wait_until(condition: Callable[[], bool], timeout: float = 15) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody takes while the broker is away: none of those that systems give to clients (from 32768)."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


# Messages


def test_a_verdict_is_told_in_full() -> None:
    entry = Entry(
        "seal", "abcd", "0042.png", "ff" * 32, "stop", 31.5, 0.016, 20.0, 30.4, None, 0.02,
        (Box(1, 2, 3, 4, 12, 40.0),), 400, 300, 0.02, 1_700_000_000.1234, 7,
    )  # fmt: skip
    told = json.loads(json.dumps(verdict_message(entry), allow_nan=False))
    assert told == {
        "type": "verdict",
        "id": 7,
        "at": "2023-11-14T22:13:20.123Z",
        "inspector": "seal",
        "model": "abcd",
        "image": "0042.png",
        "verdict": "stop",
        "score": 31.5,
        "p_value": 0.016,
        "thresholds": {"look": 20.0, "stop": 30.4},
        "reason": None,
        "area": 0.02,
        "regions": [{"x": 1, "y": 2, "width": 3, "height": 4, "area": 12, "peak": 40.0}],
    }


def test_drift_is_told_with_its_sentence() -> None:
    state = DriftMonitor(range(60)).update_all([1000.0] * 60)
    told = json.loads(json.dumps(drift_message("seal", state, 0.0)))
    assert told["type"] == "drift"
    assert told["at"] == "1970-01-01T00:00:00.000Z"
    assert told["direction"] == "stops"
    assert told["sentence"].startswith("Drift, noticed at part ")


# Webhook


class Receiver:
    """An HTTP server that answers as it is told."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self._connections: list[socket.socket] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                receiver._connections.append(self.request)
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}}, body))
                status, headers, text = receiver.answers.pop(0) if receiver.answers else (204, {}, b"")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/line?key=1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


def test_webhook_posts_the_body_signed(receiver: Receiver) -> None:
    output = WebhookOutput(receiver.url, secret="key", token="word")
    output.send(MESSAGE)
    output.send(MESSAGE)
    output.close()
    headers, body = receiver.requests[0]
    assert body == MESSAGE.body
    assert headers["path"] == "/line?key=1"
    assert headers["content-type"] == "application/json"
    assert headers["x-andon-message"] == "box-1"
    assert headers["authorization"] == "Bearer word"
    assert headers["x-andon-signature"] == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()
    assert output.name == f"webhook http://127.0.0.1:{receiver.port}/line", "what is secret in the query is not shown"


def test_signature_is_that_of_rfc_4231() -> None:
    """Test case 2 of the RFC."""
    assert signature("Jefe", b"what do ya want for nothing?") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@pytest.mark.parametrize(
    ("status", "refused"),
    [(400, True), (401, True), (404, True), (413, True), (422, True), (408, False), (425, False), (429, False),
     (500, False), (503, False), (302, False), (304, False)],
)  # fmt: skip
def test_webhook_answers(receiver: Receiver, status: int, refused: bool) -> None:
    receiver.answers = [(status, {"Retry-After": "7", "Location": "http://127.0.0.1:9/elsewhere"}, b"")]
    output = WebhookOutput(receiver.url)
    with pytest.raises(OutputError, match=str(status)) as caught:
        output.send(MESSAGE)
    assert caught.value.refused == refused
    assert caught.value.after == 7
    output.send(MESSAGE)
    output.close()
    assert len(receiver.requests) == 2, "no redirect was followed"


def test_webhook_tells_what_the_receiver_says_and_reads_no_flood(receiver: Receiver) -> None:
    receiver.answers = [(422, {}, b"no\nsuch  field"), (200, {}, b"x" * 10_000_000), (400, {}, b"\xff" * 300)]
    output = WebhookOutput(receiver.url)
    with pytest.raises(OutputError, match=r"422 Unprocessable Entity \(no such field\)"):
        output.send(MESSAGE)
    output.send(MESSAGE)
    with pytest.raises(OutputError, match="answers 400"):
        output.send(MESSAGE)
    output.close()


def test_webhook_waits_no_longer_than_told() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        output = WebhookOutput(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)
        begun = time.monotonic()
        with pytest.raises(OutputError, match="Timeout"):
            output.send(MESSAGE)
        assert time.monotonic() - begun < 5
        output.close()


def test_webhook_loses_nothing_while_the_receiver_is_away(tmp_path: Path) -> None:
    """It fails for a while, goes away, and comes back at the same address."""
    first = Receiver()
    first.answers = [(503, {}, b"")] * 3
    box = Outbox(tmp_path / "box.sqlite", [WebhookOutput(first.url, secret="key")], QUICK)
    for n in range(5):
        box.put({"n": n})
    assert box.flush(15)
    first.close()
    for n in range(5, 25):
        box.put({"n": n})
    wait_until(lambda: box.status()[0].failures >= 2)
    assert "Connect" in box.status()[0].last_error
    second = Receiver(first.port)
    assert box.flush(20)
    box.close()
    second.close()
    got = [json.loads(body)["n"] for _, body in first.requests[3:] + second.requests]
    assert got == list(range(25))


def test_webhook_sets_poison_aside(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [(422, {}, b"no such field")] * 3
    box = Outbox(tmp_path / "box.sqlite", [WebhookOutput(receiver.url)], QUICK)
    box.put({"n": 0})
    box.put({"n": 1})
    assert box.flush(15)
    (aside,) = box.aside(box.status()[0].name)
    assert "no such field" in aside.reason
    assert json.loads(receiver.requests[-1][1])["n"] == 1
    box.close()


# Addresses and secrets


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "must begin with http:// or https://"),
        ("host/x", "must begin with"),
        ("http://", "names no host"),
        ("http://host:99999/", "ut of range"),
        ("http://host:0/", "names no host"),
        ("http://ho st/", "names no host"),
        ("http://user:word@host/", "ANDON_WEBHOOK_TOKEN"),
        ("http://[::1/", "webhook"),
        ("", "must begin with"),
    ],
)
def test_bad_webhooks_are_named(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^webhook") as caught:
        parse_webhook(url, {})
    assert words in str(caught.value)


def test_webhook_takes_its_secrets_from_the_environment() -> None:
    output = parse_webhook("https://host/line", {"ANDON_WEBHOOK_SECRET": "key", "ANDON_WEBHOOK_TOKEN": "word"})
    assert output._secret == "key"
    assert output._headers["Authorization"] == "Bearer word"
    with pytest.raises(ConfigError, match="cannot be sent"):
        parse_webhook("https://host/line", {"ANDON_WEBHOOK_TOKEN": "wörd€"})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/x", "must begin with mqtt:// or mqtts://"),
        ("mqtt://host", "name a topic"),
        ("mqtt://host/", "name a topic"),
        ("mqtt://host/line/#", "without + and #"),
        ("mqtt://host/line/+/x", "without + and #"),
        ("mqtt://host/line%2B", "without + and #"),
        ("mqtt:///line", "names no host"),
        ("mqtt://host:no/line", "mqtt"),
        ("mqtt://user:word@host/line", "ANDON_MQTT_PASSWORD"),
        ("mqtt://host/line?qos=2", "is not understood"),
        ("mqtt://host/line?version=4", "is not understood"),
    ],
)
def test_bad_brokers_are_named(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^mqtt") as caught:
        parse_mqtt(url, {})
    assert words in str(caught.value)


def test_broker_addresses() -> None:
    plain = parse_mqtt("mqtt://broker/line/1", {"ANDON_MQTT_PASSWORD": "word"})
    assert (plain._host, plain._port, plain._topic, plain._login) == ("broker", 1883, "line/1", (None, None))
    assert plain._context is None
    assert plain.name == "mqtt broker:1883/line/1"
    full = parse_mqtt("mqtts://us%40er@[::1]:999/a%20b?version=3.1.1", {"ANDON_MQTT_PASSWORD": "word"})
    assert (full._host, full._port, full._topic, full._login) == ("::1", 999, "a b", ("us@er", "word"))
    assert full._context is not None
    assert full._context.verify_mode == ssl.CERT_REQUIRED
    assert parse_mqtt("mqtts://host/x", {})._port == 8883
    assert parse_mqtt("mqtt://host/x", {})._id != parse_mqtt("mqtt://host/y", {})._id
    assert parse_mqtt("mqtt://host/x", {})._id == parse_mqtt("mqtt://host/x", {})._id


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["", "http://", "https://h", "mqtt://", "mqtts://u@h/", "mqtt://h/x?"]), st.text(max_size=30))
def test_any_address_is_taken_or_refused_in_a_line(start: str, rest: str) -> None:
    for parse in (parse_webhook, parse_mqtt):
        told = ""
        try:
            parse(start + rest, {"ANDON_MQTT_PASSWORD": "word"}).close()
        except ConfigError as error:
            told = str(error)
        assert len(told.splitlines()) <= 1


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    assert secret_of("WORD", {"WORD": "known", "WORD_FILE": "/none"}) == "known"
    assert secret_of("WORD", {"WORD": "", "OTHER": "x"}) is None
    for name, content, words in (("empty", b"\n", "is empty"), ("bytes", b"\xff\xfe", "no text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"WORD_FILE: .*{words}"):
            secret_of("WORD", {"WORD_FILE": str(tmp_path / name)})
    with pytest.raises(ConfigError, match=r"WORD_FILE: .*no such file"):
        secret_of("WORD", {"WORD_FILE": str(tmp_path / "none")})
    (tmp_path / "word").write_text("from file\n")
    output = parse_mqtt("mqtt://user@host/line", {"ANDON_MQTT_PASSWORD_FILE": str(tmp_path / "word")})
    assert output._login == ("user", "from file")


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certificates cannot be read"):
        WebhookOutput("https://host/", ca=tmp_path / "none")
    with pytest.raises(ConfigError, match="certificates cannot be read"):
        MqttOutput("host", tls=True, certificate=tmp_path / "none")


# MQTT, against a real broker

MOSQUITTO = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


class Broker:
    """A mosquitto process, and a subscriber of everything."""

    def __init__(self, folder: Path, port: int, *lines: str) -> None:
        assert MOSQUITTO is not None
        config = folder / "mosquitto.conf"
        common = ["allow_anonymous true", "user root", "persistence false"]
        kept = [line for line in common if line.split()[0] not in {extra.split()[0] for extra in lines}]
        config.write_text("\n".join([f"listener {port} 127.0.0.1", *kept, *lines]) + "\n")
        self.port, self._process = (
            port,
            subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        )
        wait_until(lambda: answers_at(port))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def answers_at(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@contextmanager
def listening(port: int, **login: Any) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    from paho.mqtt import client as paho

    got: list[tuple[str, dict[str, Any]]] = []
    ready = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    if login:
        client.username_pw_set(login["user"], login["password"])
        client.tls_set(login["ca"])
    client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: got.append((message.topic, json.loads(message.payload)))
    client.connect("127.0.0.1" if not login else "localhost", port)
    client.loop_start()
    assert ready.wait(10)
    yield got
    client.disconnect()
    client.loop_stop()


@needs_broker
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_mqtt_loses_nothing_while_the_broker_is_away(tmp_path: Path, version: str) -> None:
    """Twice: ten messages while nobody is there, the station started again, the broker there and gone again."""
    port = free_port()
    address = f"mqtt://127.0.0.1:{port}/line/1?version={version}"
    box = Outbox(tmp_path / "box.sqlite", [parse_mqtt(address, {}, timeout=5)], QUICK)
    seen: list[int] = []
    for round_ in range(2):
        for n in range(10 * round_, 10 * round_ + 10):
            box.put({"n": n})
        wait_until(lambda box=box: box.status()[0].failures >= 2)
        assert "refused" in box.status()[0].last_error
        assert box.pending() == {f"mqtt 127.0.0.1:{port}/line/1": 10}
        box.close()
        broker = Broker(tmp_path, port)
        with listening(port) as got:
            box = Outbox(tmp_path / "box.sqlite", [parse_mqtt(address, {}, timeout=5)], QUICK)
            assert box.flush(20)
            wait_until(lambda got=got: len(got) >= 10)
            assert {topic for topic, _ in got} == {"line/1"}
            seen += [told["n"] for _, told in got]
        broker.close()
    assert seen == list(range(20))
    box.close()


@needs_broker
def test_mqtt_goes_on_by_itself_when_the_broker_is_back(tmp_path: Path) -> None:
    port = free_port()
    broker = Broker(tmp_path, port)
    box = Outbox(tmp_path / "box.sqlite", [MqttOutput("127.0.0.1", port, "line", timeout=5)], QUICK)
    box.put({"n": 0})
    assert box.flush(20)
    broker.close()
    for n in range(1, 6):
        box.put({"n": n})
    wait_until(lambda: box.status()[0].failures >= 2)
    broker = Broker(tmp_path, port)
    assert box.flush(20)
    assert box.status()[0].sent == 6
    box.close()
    broker.close()


KILLED = """
import itertools, sys
from pathlib import Path
from andon.inspection.station.outputs import MqttOutput, Outbox, QueueLimits

box = Outbox(Path(sys.argv[1]), [MqttOutput("127.0.0.1", int(sys.argv[2]), "line")], QueueLimits(first_wait=0.02))
for n in itertools.count(int(sys.argv[3])):
    box.put({"n": n})
    print(n, flush=True)
"""


@needs_broker
def test_mqtt_after_a_killed_process(tmp_path: Path) -> None:
    """Killed -9 with messages pending, twice, then started again: nothing is lost, the order is kept."""
    port, acknowledged = free_port(), list[int]()
    broker = Broker(tmp_path, port)
    with listening(port) as got:
        for round_ in range(2):
            process = subprocess.Popen(
                [sys.executable, "-c", KILLED, str(tmp_path / "box.sqlite"), str(port), str(100_000 * round_)],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            acknowledged += [int(process.stdout.readline()) for _ in range(60)]
            process.kill()
            rest = process.stdout.read().splitlines(keepends=True)
            acknowledged += [int(line) for line in rest if line.endswith("\n")]
            process.wait()
        box = Outbox(tmp_path / "box.sqlite", [MqttOutput("127.0.0.1", port, "line")], QUICK)
        assert box.flush(60)
        wait_until(lambda: {told["n"] for _, told in got} >= set(acknowledged))
        box.close()
    broker.close()
    ids = [told["message_id"] for _, told in got]
    order = list(dict.fromkeys(told["n"] for _, told in got))
    assert [n for n in order if n in set(acknowledged)] == acknowledged
    assert len(ids) - len(set(ids)) <= 2, "a twin a death at most"


@needs_broker
@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("mosquitto_passwd")), reason="openssl or mosquitto_passwd is missing"
)
def test_mqtt_with_tls_a_password_and_rights(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "andon", "word"], check=True)
    (tmp_path / "rights").write_text("user andon\ntopic readwrite line/#\n")
    port = free_port()
    broker = Broker(
        tmp_path, port, "allow_anonymous false", f"password_file {tmp_path / 'users'}",
        f"acl_file {tmp_path / 'rights'}", f"certfile {tmp_path / 'cert.pem'}", f"keyfile {tmp_path / 'key.pem'}",
    )  # fmt: skip
    ca, known = tmp_path / "cert.pem", {"ANDON_MQTT_PASSWORD": "word"}
    try:
        with listening(port, user="andon", password="word", ca=str(ca)) as got:
            output = parse_mqtt(f"mqtts://andon@localhost:{port}/line/1", known, ca=ca)
            output.send(MESSAGE)
            output.close()
            wait_until(lambda: got == [("line/1", {"message_id": "box-1", "n": 1})])
        faults = {
            "self-signed certificate|self signed certificate|CERTIFICATE_VERIFY_FAILED": parse_mqtt(
                f"mqtts://andon@localhost:{port}/line/1", known
            ),
            "Hostname mismatch|IP address mismatch": parse_mqtt(f"mqtts://andon@127.0.0.1:{port}/line/1", known, ca=ca),
            "Not authorized": parse_mqtt(f"mqtts://andon@localhost:{port}/line/1", {}, ca=ca),
        }
        for words, output in faults.items():
            with pytest.raises(OutputError, match=words) as caught:
                output.send(MESSAGE)
            assert not caught.value.refused, "the message is not at fault"
            output.close()
        output = parse_mqtt(f"mqtts://andon@localhost:{port}/elsewhere", known, ca=ca)
        with pytest.raises(OutputError, match=r"refuses the message \(Not authorized\)") as caught:
            output.send(MESSAGE)
        assert caught.value.refused
        output.close()
    finally:
        broker.close()


@needs_broker
def test_a_message_that_the_broker_finds_too_large_is_refused(tmp_path: Path) -> None:
    broker = Broker(tmp_path, free_port(), "max_packet_size 1000")
    output = MqttOutput("127.0.0.1", broker.port, "line")
    with pytest.raises(OutputError, match="no more than 1,000 bytes") as caught:
        output.send(Message("box-1", b"x" * 2000))
    assert caught.value.refused
    output.send(MESSAGE)
    output.close()
    broker.close()


def test_mqtt_waits_no_longer_than_told() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        output = MqttOutput("127.0.0.1", silent.getsockname()[1], "line", timeout=0.3)
        begun = time.monotonic()
        with pytest.raises(OutputError, match="no connection within"):
            output.send(MESSAGE)
        assert time.monotonic() - begun < 5
        output.close()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError, match=r"pip install 'andon\[serve\]'"):
        WebhookOutput("http://host/")
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(ConfigError, match=r"pip install 'andon\[serve\]'"):
        MqttOutput("host")

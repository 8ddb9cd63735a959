"""Receivers at the line: an HTTP address (webhook) and an MQTT broker; and what they are told."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from andon._tools.files import read_regular
from andon._tools.text import first_line
from andon.core import ConfigError
from andon.inspection.station.outbox import (
    Aside,
    Message,
    Outbox,
    Output,
    OutputError,
    OutputStatus,
    QueueLimits,
)

if TYPE_CHECKING:
    import httpx
    from paho.mqtt import client as _paho

    from andon.inspection.station.journal import Entry, Review
    from andon.inspection.station.monitor import DriftState

__all__ = [
    "MQTT_PASSWORD",
    "WEBHOOK_SECRET",
    "WEBHOOK_TOKEN",
    "Aside",
    "Message",
    "MqttOutput",
    "Outbox",
    "Output",
    "OutputError",
    "OutputStatus",
    "QueueLimits",
    "WebhookOutput",
    "drift_message",
    "parse_mqtt",
    "parse_webhook",
    "review_message",
    "secret_of",
    "signature",
    "verdict_message",
]

WEBHOOK_SECRET = "ANDON_WEBHOOK_SECRET"
"""Environment variable of the key that bodies are signed with."""
WEBHOOK_TOKEN = "ANDON_WEBHOOK_TOKEN"
"""Environment variable of the bearer token that the receiver asks for."""
MQTT_PASSWORD = "ANDON_MQTT_PASSWORD"
"""Environment variable of the broker's password."""

_RETRIED = {408, 425, 429}
"""Answers of the class 4xx that are no refusal of the message."""
_ANSWER_BYTES = 2**16
_SECRET_BYTES = 2**14
_HOW = "pip install 'andon[serve]'"


def verdict_message(entry: Entry) -> dict[str, Any]:
    """What the line is told of a verdict: JSON of an entry of the journal."""
    return {
        "type": "verdict",
        "id": entry.id,
        "at": _iso(entry.at),
        "inspector": entry.inspector,
        "model": entry.model,
        "image": entry.name,
        "verdict": entry.verdict,
        "score": entry.score,
        "p_value": entry.p_value,
        "thresholds": {"look": entry.look, "stop": entry.stop},
        "reason": entry.reason,
        "area": entry.area,
        "regions": [box._asdict() for box in entry.regions],
    }


def drift_message(inspector: str, state: DriftState, at: float) -> dict[str, Any]:
    """What the line is told when the drift alarm rises.

    Args:
        inspector: its name.
        state: of its monitor.
        at: when, seconds since the epoch.
    """
    return {
        "type": "drift",
        "at": _iso(at),
        "inspector": inspector,
        "parts": state.n,
        "began": state.began,
        "direction": state.direction,
        "sentence": state.sentence,
    }


def review_message(review: Review) -> dict[str, Any]:
    """What the line is told when a person confirms or overrules a verdict."""
    return {"type": "review", "entry": review.entry, "at": _iso(review.at), "word": review.word, "who": review.who,
            "note": review.note}  # fmt: skip


def _iso(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def signature(secret: str, body: bytes) -> str:
    """What the header ``X-Andon-Signature`` says of a body: "sha256=" and its HMAC (RFC 2104), hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def secret_of(variable: str, environment: Mapping[str, str]) -> str | None:
    """A secret: an environment variable's value, or what the file that ``<variable>_FILE`` names holds.

    None where neither is set, or both are empty.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    if environment.get(variable):
        return environment[variable]
    file = environment.get(f"{variable}_FILE")
    if not file:
        return None
    name = f"{variable}_FILE: {file}"
    try:
        content = read_regular(file, _SECRET_BYTES, what="a secret", error=ConfigError, name=name)
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: holds no text") from None
    if not text:
        raise ConfigError(f"{name}: is empty; it should hold the secret")
    return text


class WebhookOutput:
    """Posts messages to an HTTP address.

    A message has arrived when the answer is of the class 2xx. 408, 425, 429, 5xx, redirects (which are never followed)
    and no answer are tried again; any other 4xx refuses the message. Proxies of the environment are not used.

    Args:
        url: ``http://`` or ``https://``.
        secret: key of ``signature``; None for no such header.
        token: bearer token; None for none.
        timeout: seconds to connect, and to wait for each piece of the answer.
        ca: PEM file of the authorities that are trusted; None for the system's.
        name: of the queue; None for one from the address without its query.

    Raises:
        ConfigError: httpx is not installed, or a bad address or file.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | None = None,
        token: str | None = None,
        timeout: float = 5.0,
        ca: Path | None = None,
        name: str | None = None,
    ) -> None:
        parts = _split(url, "webhook", {"http": 80, "https": 443}, "https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(f"webhook: a name or password in the address would be seen by all; set {WEBHOOK_TOKEN}")
        self.name = name or f"webhook {parts.scheme}://{parts.netloc}{parts.path}"
        self._url, self._secret = parts._replace(fragment="").geturl(), secret
        self._headers = {"Content-Type": "application/json", "User-Agent": "andon"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        try:
            import httpx
        except ImportError as error:
            raise ConfigError(f"webhook: this needs httpx ({first_line(error)}): {_HOW}") from error
        self._httpx = httpx
        try:
            httpx.Request("POST", self._url, headers=self._headers)
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
            raise ConfigError(f"webhook: the address or the token cannot be sent ({first_line(error)})") from error
        self._client: httpx.Client = httpx.Client(
            timeout=timeout, follow_redirects=False, trust_env=False, verify=_context("webhook", ca)
        )

    def send(self, message: Message) -> None:
        """Posts a message; OutputError unless the answer is 2xx."""
        headers = {**self._headers, "X-Andon-Message": message.id}
        if self._secret is not None:
            headers["X-Andon-Signature"] = signature(self._secret, message.body)
        try:
            with self._client.stream("POST", self._url, content=message.body, headers=headers) as answer:
                text = _beginning(answer)
        except (self._httpx.HTTPError, self._httpx.StreamError, OSError) as error:
            raise OutputError(f"{self.name}: {type(error).__name__}: {first_line(error)}") from error
        if answer.is_success:
            return
        status, where = answer.status_code, answer.headers.get("location")
        what = f"redirects to {where}, which is not followed" if answer.is_redirect else text
        raise OutputError(
            f"{self.name}: answers {status} {answer.reason_phrase}{what and f' ({what})'}",
            refused=400 <= status < 500 and status not in _RETRIED,
            after=_seconds(answer.headers.get("retry-after")),
        )

    def close(self) -> None:
        """Ends its connections."""
        self._client.close()


def _beginning(answer: httpx.Response) -> str:
    """The first words of an answer; no more of it is read than fits."""
    read = bytearray()
    for chunk in answer.iter_raw(4096):
        read += chunk
        if len(read) > _ANSWER_BYTES:
            break
    return " ".join(read[:200].decode("utf-8", "replace").split())


def _seconds(after: str | None) -> float | None:
    """What Retry-After says, where it is a number of seconds."""
    return float(after) if after is not None and re.fullmatch(r"\d{1,9}", after) else None


@dataclass
class _Answers:
    """What a broker says, brought from paho's thread."""

    connected: threading.Event
    refusal: str = ""
    most: int | None = None
    failed: str = ""


class MqttOutput:
    """Publishes messages on a topic of an MQTT broker, with QoS 1.

    A message has arrived when the broker acknowledges it (PUBACK). The session is persistent: the client's id stays the
    same. After a lost connection everything begins anew, so nothing is in flight but the message at hand.

    Args:
        host, port: of the broker; port None for 8883 with TLS and 1883 without.
        topic: without wildcards.
        username, password: where the broker asks for them.
        tls: whether the connection is encrypted and the broker's certificate checked.
        ca, certificate, key: PEM files: authorities that are trusted instead of the system's, and a certificate of this
            station with its key.
        client_id: unlike any other of the broker's clients; None for one from this machine's name, broker and topic.
        version: of the protocol. With 3.1.1 a broker cannot say that it refused a message.
        retain: whether the broker hands the last message to whoever subscribes later.
        timeout: seconds to wait for the connection, and for each acknowledgement.
        name: of the queue; None for one from broker and topic.

    Raises:
        ConfigError: paho-mqtt is not installed, or a bad topic or file.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        topic: str = "andon",
        *,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        client_id: str | None = None,
        version: Literal["5", "3.1.1"] = "5",
        retain: bool = False,
        timeout: float = 10.0,
        name: str | None = None,
    ) -> None:
        if not topic or re.search("[+#\0]", topic) or len(topic.encode()) > 65535:
            raise ConfigError(f"mqtt: the topic {topic!r} cannot be published on: a path without + and #, as in line/1")
        if password is not None and username is None:
            raise ConfigError("mqtt: a password needs a user: mqtts://user@host/topic")
        try:
            from paho.mqtt import client, packettypes, properties
        except ImportError as error:
            raise ConfigError(f"mqtt: this needs paho-mqtt ({first_line(error)}): {_HOW}") from error
        self._paho, self._host, self._topic = client, host, topic
        self._port = (8883 if tls else 1883) if port is None else port
        self._login = (username, password)
        self._five, self._retain, self._timeout = version == "5", retain, timeout
        self._context = _context("mqtt", ca, certificate, key) if tls else None
        self._session = properties.Properties(packettypes.PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._session.SessionExpiryInterval = 86400
        where = f"{socket.gethostname()} {host}:{self._port}/{topic}"
        self._id = client_id or f"andon-{hashlib.sha256(where.encode()).hexdigest()[:16]}"
        self.name = name or f"mqtt {host}:{self._port}/{topic}"
        self._client: _paho.Client | None = None
        self._answers = _Answers(threading.Event())

    def send(self, message: Message) -> None:
        """Publishes a message; OutputError unless the broker acknowledges it."""
        if self._client is None or not self._client.is_connected():
            self._connect()
        client, answers = self._client, self._answers
        if client is None:
            raise OutputError(f"{self.name}: is not connected")
        if answers.most is not None and len(message.body) + len(self._topic.encode()) + 32 > answers.most:
            raise OutputError(f"{self.name}: the broker takes no more than {answers.most:,} bytes", refused=True)
        answers.failed = ""
        try:
            handle = client.publish(self._topic, message.body, qos=1, retain=self._retain)
            handle.wait_for_publish(self._timeout)
            arrived = handle.is_published()
        except (OSError, ValueError, RuntimeError) as error:
            self._drop()
            raise OutputError(f"{self.name}: {first_line(error)}") from error
        if not arrived:
            self._drop()
            raise OutputError(f"{self.name}: no acknowledgement within {self._timeout:g} s")
        if answers.failed:
            # 0x97, quota exceeded, passes; the others are of the message, its topic or its rights.
            raise OutputError(
                f"{self.name}: the broker refuses the message ({answers.failed})",
                refused=answers.failed != "Quota exceeded",
            )

    def close(self) -> None:
        """Takes leave of the broker."""
        self._drop()

    def _connect(self) -> None:
        self._drop()
        answers = self._answers = _Answers(threading.Event())
        client = self._client = self._made(answers)
        try:
            if self._five:
                client.connect(self._host, self._port, keepalive=30, clean_start=False, properties=self._session)
            else:
                client.connect(self._host, self._port, keepalive=30)
            client.loop_start()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._drop()
            raise OutputError(f"{self.name}: {first_line(error)}") from error
        connected, refusal = answers.connected.wait(self._timeout), answers.refusal
        if not connected or refusal:
            self._drop()  # which ends the connection, as answers would say
            raise OutputError(f"{self.name}: {refusal or f'no connection within {self._timeout:g} s'}")

    def _made(self, answers: _Answers) -> _paho.Client:
        """A client that has not connected yet and tells ``answers``."""
        paho = self._paho
        client: _paho.Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            self._id,
            clean_session=None if self._five else False,
            protocol=paho.MQTTv5 if self._five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timeout
        if self._login[0] is not None:
            client.username_pw_set(*self._login)
        if self._context is not None:
            client.tls_set_context(self._context)

        def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                answers.refusal = f"the broker refuses the connection ({reason})"
            answers.most = getattr(properties, "MaximumPacketSize", None)
            answers.connected.set()

        def on_disconnect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            answers.refusal = answers.refusal or f"the connection ended ({reason})"
            answers.connected.set()

        def on_publish(_client: Any, _data: Any, _mid: int, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                answers.failed = str(reason)

        client.on_connect, client.on_disconnect, client.on_publish = on_connect, on_disconnect, on_publish
        return client

    def _drop(self) -> None:
        """Ends the connection, with whatever paho still had in flight."""
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(OSError, ValueError):
            client.disconnect()
        client.loop_stop()


def parse_webhook(url: str, environment: Mapping[str, str] | None = None, **options: Any) -> WebhookOutput:
    """What ``--webhook URL`` means; key and token are the environment's.

    Raises:
        ConfigError: not such an address.
    """
    known = os.environ if environment is None else environment
    return WebhookOutput(url, secret=secret_of(WEBHOOK_SECRET, known), token=secret_of(WEBHOOK_TOKEN, known), **options)


def parse_mqtt(url: str, environment: Mapping[str, str] | None = None, **options: Any) -> MqttOutput:
    """What ``--mqtt mqtt[s]://user@host:port/topic`` means; the password is the environment's.

    ``?version=3.1.1`` is for a broker that does not know MQTT 5.

    Raises:
        ConfigError: not such an address.
    """
    known = os.environ if environment is None else environment
    parts = _split(url, "mqtt", {"mqtt": 1883, "mqtts": 8883}, "mqtts://user@host:8883/topic")
    if parts.password is not None:
        raise ConfigError(f"mqtt: a password in the address would be seen by all; set {MQTT_PASSWORD}")
    query = parse_qs(parts.query, keep_blank_values=True)
    version = query.pop("version", ["5"])[-1]
    if query or version not in ("5", "3.1.1"):
        raise ConfigError(f"mqtt: {parts.query!r} is not understood; after the topic there may be ?version=3.1.1")
    if "#" in url or not parts.path.strip("/"):
        raise ConfigError("mqtt: name a topic, without + and #: mqtts://user@host:8883/line/1/verdicts")
    username = unquote(parts.username) if parts.username is not None else None
    password = secret_of(MQTT_PASSWORD, known) if username is not None else None
    return MqttOutput(
        parts.hostname or "",
        parts.port,
        unquote(parts.path[1:]),
        username=username,
        password=password,
        tls=parts.scheme == "mqtts",
        version="5" if version == "5" else "3.1.1",
        **options,
    )


def _split(url: str, option: str, schemes: Mapping[str, int], example: str) -> SplitResult:
    """An address in its parts, checked."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{option}: {first_line(error)}; an address is like {example}") from error
    if parts.scheme not in schemes:
        known = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigError(f"{option}: the address must begin with {known}, as in {example}")
    if not parts.hostname or port == 0 or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ConfigError(f"{option}: names no host that could be reached; an address is like {example}")
    return parts


def _context(option: str, ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"{option}: certificates cannot be read ({first_line(error)})") from error
    return context

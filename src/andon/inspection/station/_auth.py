"""Who may use the service: bearer tokens, and a cookie of them for the web page."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from andon._tools.files import read_regular
from andon.core import ConfigError

__all__ = ["COOKIE", "SESSION_SECONDS", "Tokens"]

COOKIE = "andon_session"
SESSION_SECONDS = 12 * 3600
SHORTEST = 16
"""Characters of a token: shorter ones can be guessed."""
_MOST_BYTES = 2**20


class Tokens:
    """The tokens that open the service; none: it is open to all that reach it.

    A session's cookie says until when it holds, signed with the token that it was given for. So it outlives a restart,
    and ends with its token.

    Raises:
        ConfigError: a token that is too short, or no printable ASCII.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._tokens = tuple(token.encode() for token in tokens)
        for token in self._tokens:
            if len(token) < SHORTEST or not all(32 < byte < 127 for byte in token):
                raise ConfigError(f"a token needs at least {SHORTEST} printable ASCII characters without spaces")

    def __bool__(self) -> bool:
        return bool(self._tokens)

    @classmethod
    def of(cls, file: Path | None, environment: str | None = None) -> Tokens:
        """The tokens of a file, one a line, ``#`` comments; and those of ``ANDON_TOKENS``, separated by spaces or
        commas.

        Raises:
            ConfigError: the file cannot be read, or holds none.
        """
        found = [] if environment is None else environment.replace(",", " ").split()
        if file is not None:
            data = read_regular(file, _MOST_BYTES, what="a file of tokens", error=ConfigError)
            try:
                lines = [line.partition("#")[0].strip() for line in data.decode().splitlines()]
            except UnicodeDecodeError:
                raise ConfigError(f"{file}: is no text") from None
            inside = [line for line in lines if line]
            if not inside:
                raise ConfigError(f"{file}: holds no token; write one a line")
            found += inside
        return cls(found)

    def accepts(self, token: bytes) -> bool:
        """Whether a token is one of them; takes as long for a wrong one as for a right one."""
        given = hashlib.sha256(token).digest()
        found = False
        for known in self._tokens:
            found |= hmac.compare_digest(given, hashlib.sha256(known).digest())
        return found

    def session(self, token: bytes, now: float | None = None) -> str:
        """The value of a cookie for somebody who gave a token."""
        until = str(int((time.time() if now is None else now) + SESSION_SECONDS))
        return f"{until}.{_signature(token, until)}"

    def holds(self, cookie: str, now: float | None = None) -> bool:
        """Whether a cookie is of one of the tokens, and still holds."""
        until, _, signature = cookie.partition(".")
        given = hashlib.sha256(signature.encode("utf-8", "replace")).digest()
        found = False
        for known in self._tokens:
            found |= hmac.compare_digest(given, hashlib.sha256(_signature(known, until).encode()).digest())
        if not (found and until.isascii() and until.isdigit()):
            return False
        return int(until) > (time.time() if now is None else now)


def _signature(token: bytes, until: str) -> str:
    return hmac.new(token, b"andon session " + until.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def readable_by_others(file: Path) -> bool:
    """Whether others than a file's owner may read it."""
    return os.name == "posix" and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))

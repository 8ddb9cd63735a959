"""Downloads that go on where they stopped, and count only when they are what their publisher says."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from andon.core import DataError, ProgressCallback, no_progress

__all__ = ["RemoteFile", "download", "zenodo_files"]

_TIMEOUT = 60.0
_ATTEMPTS = 6
_STEP = 2**18
_MAX_RECORD_BYTES = 2**22
_MAX_BYTES = 2**40
_AGENT = {"User-Agent": "andon (data sets)"}
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that ask to come again."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that is published.

    Attributes:
        name: what to call it.
        url: where it is.
        bytes: its size; None where it is not published.
        checksums: as published, (algorithm, hexadecimal digits): ("md5", …); all of them must fit.
    """

    name: str
    url: str
    bytes: int | None = None
    checksums: tuple[tuple[str, str], ...] = ()


class _Response(Protocol):
    status: int
    headers: Any

    def read(self, amount: int = -1) -> bytes: ...

    def close(self) -> None: ...


def download(
    file: RemoteFile,
    target: Path,
    *,
    progress: ProgressCallback = no_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Downloads a file, or goes on with what is there of it (``<name>.part``).

    A connection that breaks is taken up again, with pauses that grow while nothing comes; a server that cannot go on
    begins anew. The file gets its name when its size and checksums fit.

    Args:
        target: the file; one that is there is checked, not downloaded.
        progress: called with ("download NAME", bytes done, bytes in all).

    Raises:
        DataError: no such file, no network, or a file that is not what its publisher says: it is removed then.
    """
    if target.is_file():
        _check(file, target, "remove it")
        return target
    part = target.with_name(f"{target.name}.part")
    failures = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = part.stat().st_size if part.exists() else 0
            if file.bytes is not None and before >= file.bytes:
                break
            problem, wait = _attempt(file, part, before, progress)
            if problem is None:
                break
            failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
            if failures >= _ATTEMPTS:
                raise DataError(
                    f"{file.url}: cannot be downloaded ({problem}); what came is kept in {part}, run it again to go on"
                )
            sleep(wait if wait is not None else min(30.0, 2.0**failures))
        try:
            _check(file, part, "it was removed; run it again")
        except DataError:
            part.unlink()
            raise
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _attempt(file: RemoteFile, part: Path, have: int, progress: ProgressCallback) -> tuple[str | None, float | None]:
    """One connection: what went wrong, None where all came, and how long the server asks to wait."""
    headers = dict(_AGENT)
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _open(file.url, headers)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing after what is there: it is whole, or of another file
            if file.bytes is None:
                return None, None
            part.unlink(missing_ok=True)
            return "the server's file is shorter than what was there", 0.0
        if error.code in _LATER:
            return f"the server answers {error.code}", _seconds(error.headers.get("Retry-After"))
        raise DataError(f"{file.url}: the server answers {error.code} ({error.reason})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(getattr(error, "reason", None) or error) or type(error).__name__, None
    try:
        if response.status == 206 and _first(response.headers.get("Content-Range")) != have:
            return "the server sends another part than asked for", None
        start = have if response.status == 206 else 0
        return _receive(file, response, part, start, progress), None
    finally:
        response.close()


def _receive(file: RemoteFile, response: _Response, part: Path, start: int, progress: ProgressCallback) -> str | None:
    length = response.headers.get("Content-Length")
    total = file.bytes or (start + int(length) if length is not None and length.isdecimal() else 0)
    most = file.bytes if file.bytes is not None else _MAX_BYTES
    done = start
    with part.open("r+b" if part.exists() else "wb") as out:
        out.seek(start)
        out.truncate()
        while True:
            try:
                block = response.read(_STEP)
            except (OSError, http.client.HTTPException) as error:
                return f"the connection broke ({error})"
            if not block:
                break
            done += len(block)
            if done > most:
                out.truncate(start)
                raise DataError(f"{file.url}: the server sends more than the {most:,} bytes of this file")
            out.write(block)
            progress(f"download {file.name}", done, max(total, done))
    return f"only {done:,} of {total:,} bytes came" if total and done < total else None


def _open(url: str, headers: dict[str, str]) -> _Response:
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: not an address of the web")
    response: _Response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    return response


def _first(content_range: str | None) -> int | None:
    """The first byte of "bytes 100-199/200"."""
    words = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(words) if words.isdecimal() else None


def _seconds(text: str | None) -> float | None:
    return min(120.0, float(text)) if text is not None and text.isdecimal() else None


def _check(file: RemoteFile, path: Path, way_out: str) -> None:
    """DataError where a file has another size or checksum than published."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        raise DataError(f"{path}: {size:,} bytes, not the {file.bytes:,} published for {file.name}; {way_out}")
    for (algorithm, wanted), found in zip(file.checksums, _digests(path, [a for a, _ in file.checksums]), strict=True):
        if found != wanted.lower():
            raise DataError(
                f"{path}: its {algorithm} is {found}, not {wanted.lower()} as published for {file.name}; {way_out}"
            )


def _digests(path: Path, algorithms: Sequence[str]) -> Iterator[str]:
    hashes = [hashlib.new(algorithm, usedforsecurity=False) for algorithm in algorithms]
    with path.open("rb") as file:
        while block := file.read(_STEP):
            for each in hashes:
                each.update(block)
    yield from (each.hexdigest() for each in hashes)


def zenodo_files(record: int, *, host: str = "https://zenodo.org") -> tuple[RemoteFile, ...]:
    """The files of a record of Zenodo with their sizes and checksums, as its API says.

    Raises:
        DataError: no network, or an answer that is none.
    """
    url = f"{host}/api/records/{record}"
    try:
        response = _open(url, _AGENT)
        try:
            data = response.read(_MAX_RECORD_BYTES)
        finally:
            response.close()
        entries = json.loads(data)["files"]
        return tuple(_remote(entry, host, record) for entry in entries)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: cannot be read ({reason})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{url}: the answer lists no files ({error!r:.80})") from error


def _remote(entry: Any, host: str, record: int) -> RemoteFile:
    name, size = str(entry["key"]), int(entry["size"])
    algorithm, mark, digits = str(entry["checksum"]).partition(":")
    if not mark or algorithm not in ("md5", "sha256", "sha512"):
        raise ValueError(f"checksum {entry['checksum']!r}")
    if not name or "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise ValueError(f"file name {name!r}")
    return RemoteFile(name, f"{host}/api/records/{record}/files/{name}/content", size, ((algorithm, digits),))

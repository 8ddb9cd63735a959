"""A bounded cache of arrays on disk, one entry an image and kind, shared by processes.

An entry is one file: a magic word, the length and CRC-32 of what follows, a JSON header with dtype and shape of every
array, and their bytes, each array at a multiple of 64 bytes. There are no pickles in it. It is written aside and
renamed, so a reader sees a whole entry or none; what a crash or a bad disk leaves half is told by its length or
checksum, counts as absent, and is removed.

Costs: ``get`` one open, one read, one checksum (about 1 ms for 1 MB); ``put`` one write and one rename. The folder is
scanned once a process before its first ``put`` and again when the bound is reached (some µs an entry), not at every
``put``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from andon._tools.files import written_atomically

__all__ = ["ArrayCache"]

_MAGIC = b"ANDONAR1"
_PREFIX = struct.Struct("<8sQII")  # magic, bytes after the prefix, their CRC-32, bytes of the JSON header
_ALIGNMENT = 64
_SUFFIX = ".arrays"
_ASIDE = ".part"
_ASIDE_SECONDS = 3600.0
"""A file written aside that is older was left behind by a killed process."""
_KEPT_AFTER_EVICTION = 0.9
"""Eviction makes room for more than one entry, so that it is rare."""
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")

Array = np.ndarray[Any, Any]


class ArrayCache:
    """Arrays by (kind, key): kind = what was computed and how, key = the image's fingerprint.

    Any number of threads and processes may use one folder. The total stays within ``max_bytes`` by removing what was
    not used for longest; each further process that writes at the same time may exceed it by 1/32, the amount after
    which it looks again at what the others wrote. A cache can always be lost: no problem with the disk is an error, the
    first one gives a warning and the cache then stores nothing more.

    Args:
        root: its folder; made when the first entry is stored.
        max_bytes: most bytes in it; 0 stores nothing.
    """

    touch_seconds = 60.0
    """Use of an entry is noted on disk at most this often."""

    def __init__(self, root: Path, *, max_bytes: int = 20 * 2**30) -> None:
        self.root = Path(root)
        self.max_bytes = max_bytes
        self._reset()

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[str, FileLock] = {}
        self._total: int | None = None
        """Bytes in the folder as far as this process knows; None before the first scan."""
        self._written = 0
        """Bytes that this process wrote since its last scan."""
        self._broken = False

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def get(self, kind: str, key: str) -> tuple[Array, ...] | None:
        """The arrays of an entry, or None where there is none (or it is damaged: then it is removed).

        They are the caller's own and may be written to.
        """
        path = self._path(kind, key)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                arrays = _unpack(file, status.st_size)
        except (OSError, MemoryError):
            return None
        except (ValueError, TypeError, KeyError, struct.error):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if time.time() - status.st_mtime > self.touch_seconds:
            with contextlib.suppress(OSError):
                os.utime(path)
        return arrays

    def put(self, kind: str, key: str, arrays: Sequence[Array]) -> None:
        """Stores an entry atomically. A full disk is not an error here: the cache just stays without it.

        Raises:
            ValueError: an array holds Python objects.
        """
        chunks = _pack(arrays)
        size = sum(len(chunk) for chunk in chunks)
        if self._broken or size > self.max_bytes:
            return
        path = self._path(kind, key)
        try:
            if not self._make_room(size):
                return
            replaced = _size(path)
            # Not durable: what a power failure takes is computed again.
            with written_atomically(path, suffix=_ASIDE, durable=False) as aside, aside.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
        except OSError as error:
            self._give_up(error)
            return
        with self._mutex:
            self._total = (self._total or 0) + size - replaced
            self._written += size

    def lock(self, kind: str) -> AbstractContextManager[object]:
        """Held while missing entries of a kind are computed, so that two processes do not compute them twice.

        It waits as long as another process holds it; the system frees it when that process ends, however it does. The
        same thread may take it again while it holds it.
        """
        if self._broken:
            return nullcontext()
        name = _plain(kind)
        try:
            folder = self.root / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            self._give_up(error)
            return nullcontext()
        with self._mutex:
            return self._locks.setdefault(name, FileLock(folder / f"{name}.lock"))

    def _path(self, kind: str, key: str) -> Path:
        name = _plain(key)
        # Two levels, because some file systems are slow with 100,000 files in a folder.
        return self.root / _plain(kind) / name[:2].ljust(2, "_") / f"{name}{_SUFFIX}"

    def _give_up(self, error: OSError) -> None:
        with self._mutex:
            first, self._broken = not self._broken, True
        if first:
            warnings.warn(
                f"cache {self.root}: cannot be written ({error.strerror or error}); going on without storing more",
                UserWarning,
                stacklevel=3,
            )

    def _make_room(self, size: int) -> bool:
        """Makes room for ``size`` bytes: removes the entries not used for longest. Whether it worked."""
        with self._mutex:
            if self._total is None or self._written > self.max_bytes // 32:
                self._total = sum(entry_size for _, entry_size, _ in self._entries())
                self._written = 0
            if self._total + size <= self.max_bytes:
                return True
            entries = sorted(self._entries())
            total = sum(entry_size for _, entry_size, _ in entries)
            wanted = min(int(self.max_bytes * _KEPT_AFTER_EVICTION), self.max_bytes - size)
            for _, entry_size, path in entries:
                if total <= wanted:
                    break
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass  # another process evicts too
                except OSError:
                    continue
                total -= entry_size
            self._total, self._written = total, 0
            return total + size <= self.max_bytes

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every entry; also clears away what killed processes left."""
        now = time.time()
        for kind in _scan(self.root):
            for bucket in _scan(kind.path) if kind.is_dir() else ():
                for entry in _scan(bucket.path) if bucket.is_dir() else ():
                    try:
                        status = entry.stat()
                    except OSError:
                        continue
                    if entry.name.endswith(_SUFFIX):
                        yield status.st_mtime, status.st_size, entry.path
                    elif entry.name.endswith(_ASIDE) and now - status.st_mtime > _ASIDE_SECONDS:
                        with contextlib.suppress(OSError):
                            os.unlink(entry.path)


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _plain(name: str) -> str:
    """A name as it is where it can be a file's, its hash otherwise."""
    if _PLAIN.fullmatch(name):
        return name
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _pack(arrays: Sequence[Array]) -> list[bytes | memoryview]:
    """A file's content in pieces, without copying arrays that are contiguous."""
    described: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    offset = 0
    for array in arrays:
        if array.dtype.hasobject or array.dtype.names is not None:
            raise ValueError(f"arrays of {array.dtype} cannot be cached")
        described.append({"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset})
        data = np.asarray(array, order="C").reshape(-1).view(np.uint8).data if array.size else b""
        padding = -len(data) % _ALIGNMENT
        pieces += [data, b"\0" * padding]
        offset += len(data) + padding
    text = json.dumps(described).encode()
    header = text + b" " * (-(_PREFIX.size + len(text)) % _ALIGNMENT)
    checksum = zlib.crc32(header)
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return [_PREFIX.pack(_MAGIC, len(header) + offset, checksum, len(header)), header, *pieces]


def _unpack(file: Any, size: int) -> tuple[Array, ...]:
    """The arrays of a file of ``size`` bytes; ValueError where it is damaged."""
    magic, length, checksum, header_length = _PREFIX.unpack(file.read(_PREFIX.size))
    if magic != _MAGIC or _PREFIX.size + length != size or header_length > length:
        raise ValueError("not a whole entry")
    # The prefix is 24 bytes of 64: reading it into the buffer too keeps the arrays aligned.
    content = np.empty(size, dtype=np.uint8)
    content[: _PREFIX.size] = 0
    view = content.data[_PREFIX.size :]
    if file.readinto(view) != length or zlib.crc32(view) != checksum:
        raise ValueError("damaged entry")
    arrays = []
    for described in json.loads(bytes(view[:header_length])):
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        start = _PREFIX.size + header_length + described["offset"]
        n_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(content[start : start + n_bytes].view(dtype).reshape(shape))
    return tuple(arrays)

"""The container of an inspector's file: a plain ZIP archive, stored, in one form only.

Any tool unpacks it, and ``sha256sum -c SHA256SUMS`` checks it. It is read by this module alone, which takes the one
form that it writes and nothing else: members one behind the other from the first byte on, none compressed (nothing to
blow up), no field that says anything but name, size and checksum, then exactly the directory that belongs to them.
Whatever else bytes could be is refused: there is no place where something could hide, or be read in two ways.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from andon._tools.files import read_regular, write_file
from andon.core import DetectorError

__all__ = ["MAX_BYTES", "SUMS", "content_digest", "pack", "read_container", "unpack", "write_container"]

SUMS = "SHA256SUMS"
"""The first member: SHA-256 and name of each of the others."""
MAX_BYTES = 2**31
"""Largest file, bytes."""
_MOST_MEMBERS = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_DATE = 0x5821  # 2024-01-01: equal content makes equal files
_VERSION = 20


def pack(members: Mapping[str, bytes]) -> bytes:
    """The container of members by name, in their order; the sums are made here.

    Raises:
        DetectorError: more than 2 GiB.
        ValueError: a name that is not plain, or none at all.
    """
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members.items())
    everything = {SUMS: lines.encode(), **members}
    if not members or SUMS in members or len(everything) > _MOST_MEMBERS or not all(map(_NAME.fullmatch, members)):
        raise ValueError(f"not members of a container: {list(members)}")
    if sum(map(len, everything.values())) > MAX_BYTES - 2**16:
        raise DetectorError(f"what was learned is too large for an inspector's file (limit {MAX_BYTES:,} bytes)")
    parts: list[bytes] = []
    entries, at = [], 0
    for name, content in everything.items():
        checksum = zlib.crc32(content)
        parts += [_local(name, checksum, len(content)), content]
        entries.append((name, checksum, len(content), at))
        at += _LOCAL.size + len(name) + len(content)
    return b"".join([*parts, _directory(entries, at)])


def _local(name: str, checksum: int, size: int) -> bytes:
    return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, checksum, size, size, len(name), 0) + name.encode()


def _directory(entries: list[tuple[str, int, int, int]], at: int) -> bytes:
    """What follows the members: their directory, and its end."""
    listed = b"".join(
        _CENTRAL.pack(
            b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, checksum, size, size, len(name), 0, 0, 0, 0, 0, offset
        )
        + name.encode()
        for name, checksum, size, offset in entries
    )
    return listed + _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(listed), at, 0)


def unpack(data: bytes, name: str) -> dict[str, memoryview]:
    """The members of a container but for the sums, all of them checked.

    Args:
        data: the file's content; members are views of it.
        name: what messages call it.

    Raises:
        DetectorError: no container, or one that is damaged, cut off, or changed.
    """
    view, at, entries = memoryview(data), 0, list[tuple[str, int, int, int]]()
    members: dict[str, memoryview] = {}
    while data[at : at + 4] == b"PK\3\4":
        member, checksum, size, start = _member(data, at, name)
        if member in members or len(members) >= _MOST_MEMBERS:
            raise _refused(name, f"it has {member} twice" if member in members else "it has too many members")
        members[member] = view[start : start + size]
        entries.append((member, checksum, size, at))
        at = start + size
    if not members:
        raise DetectorError(f"{name}: is not an inspector's file; one is written by andon train")
    if view[at:] != _directory(entries, at):
        raise _refused(name, "the end is missing or is not that of its members")
    _check_sums(members, name)
    return members


def _member(data: bytes, at: int, name: str) -> tuple[str, int, int, int]:
    """Name, checksum, size and begin of the member whose header is at a place."""
    if len(data) - at < _LOCAL.size:
        raise _refused(name, "it is cut off")
    checksum, size, _, length = _LOCAL.unpack_from(data, at)[6:10]
    start = at + _LOCAL.size + length
    member = data[at + _LOCAL.size : start].decode("ascii", errors="replace")
    if not _NAME.fullmatch(member):
        raise _refused(name, "a member's name is not one that Andon gives")
    if start + size > len(data):
        raise _refused(name, f"it is cut off, or {member} claims to be larger than it is")
    if data[at:start] != _local(member, checksum, size):
        raise _refused(name, f"{member} is not stored as Andon stores it")
    return member, checksum, size, start


def _check_sums(members: dict[str, memoryview], name: str) -> None:
    sums = members.pop(SUMS, None)
    if sums is None:
        raise _refused(name, f"it has no {SUMS}")
    lines = bytes(sums[: 2**16]).decode("ascii", errors="replace").splitlines()
    found = [match.groups() for match in map(_LINE.fullmatch, lines) if match]
    if len(found) != len(lines) or [member for _, member in found] != list(members):
        raise _refused(name, f"{SUMS} does not name its members")
    for digest, member in found:
        if hashlib.sha256(members[member]).hexdigest() != digest:
            raise _refused(name, f"{member} was changed")


def _refused(name: str, reason: str) -> DetectorError:
    return DetectorError(f"{name}: the inspector's file is damaged: {reason}; take another copy, or train it again")


def content_digest(members: Mapping[str, bytes | memoryview]) -> str:
    """A name for what the members hold: 12 hexadecimal digits of the SHA-256 of their SHA-256."""
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members.items())
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def read_container(path: Path) -> dict[str, memoryview]:
    """``unpack`` of a file; nothing that is no regular file, or too large, is read."""
    content = read_regular(path, MAX_BYTES, what="an inspector's file", error=DetectorError)
    return unpack(content, str(path))


def write_container(path: Path, members: Mapping[str, bytes]) -> None:
    """Writes a container; the file appears whole or not at all.

    Raises:
        DetectorError: it cannot be written, or is too large.
    """
    write_file(path, pack(members), DetectorError)

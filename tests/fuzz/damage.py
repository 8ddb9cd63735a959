"""Damage to valid files: what disks, networks and people who want to do harm leave of them."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib

import numpy as np

__all__ = ["damaged", "damaged_text"]

_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
)
_NASTY = (
    "null", "true", "[]", "{}", "[[]]", '""', "0", "-1", "1e999", "-1e999", "NaN", "Infinity", "1" * 400, "0.1",
    "1e-400", "18446744073709551616", '"\\ud800"', '"' + "x" * 5000 + '"', "[" * 3000, '{"a":' * 3000, "[" * 100_000,
    '"\\u0000"', "~", "!!python/object:os.system {}", "&a [*a]", "2026-99-99", "? [1]", "<<", "0x_", "1:99:99", "\t",
    '"../../etc/passwd"', "\ufeff",
)  # fmt: skip
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[A-Za-z_][\w./-]*|[\[\]{},:\n]')


def damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """A damaged copy: from the outside, or inside an archive's member or a PNG's chunks with the checksums mended."""
    if rng.random() < 0.5:
        if data.startswith(b"PK") and (inside := _inside_zip(rng, data)) is not None:
            return inside
        if data.startswith(_PNG):
            return _mended_png(_times(rng, data))
        if _is_safetensors(data):
            return _inside_safetensors(rng, data)
    return _times(rng, data)


def damaged_text(rng: np.random.Generator, data: bytes) -> bytes:
    """A damaged copy of a JSON or YAML text: words replaced, dropped and doubled, or bytes damaged."""
    if rng.random() < 0.25:
        return _times(rng, data)
    for _ in range(int(rng.integers(1, 4))):
        tokens = list(_TOKEN.finditer(data))
        if not tokens:
            return data
        token = tokens[int(rng.integers(len(tokens)))]
        other = tokens[int(rng.integers(len(tokens)))].group()
        nasty = _NASTY[int(rng.integers(len(_NASTY)))].encode()
        new = (nasty, nasty, nasty, b"", token.group() * 2, other)[int(rng.integers(6))]
        data = data[: token.start()] + new + data[token.end() :]
    return data


def _times(rng: np.random.Generator, data: bytes) -> bytes:
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        data = _once(rng, data)
    return data


def _place(rng: np.random.Generator, size: int) -> int:
    """Headers are hit as often as all the rest."""
    return int(rng.integers(min(size, 128) if rng.random() < 0.5 else size)) if size else 0


def _once(rng: np.random.Generator, data: bytes) -> bytes:
    at, out = _place(rng, len(data)), bytearray(data)
    length = int(rng.integers(1, 65))
    kind = int(rng.integers(8))
    if kind == 0:  # flipped bits
        for _ in range(int(rng.choice([1, 1, 2, 8, 64]))):
            if out:
                out[_place(rng, len(out))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        out[at:at] = rng.bytes(length)
    elif kind == 3:  # doubled
        out[at:at] = out[at : at + length * 4]
    elif kind == 4:  # swapped
        other = _place(rng, len(out))
        first, second = sorted((at, other))
        length = min(length, second - first, len(out) - second)
        out[first : first + length], out[second : second + length] = (
            out[second : second + length],
            out[first : first + length],
        )
    elif kind == 5:  # a forged size
        size = _SIZES[int(rng.integers(len(_SIZES)))]
        form = str(rng.choice(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]))
        packed = struct.pack(form, size % 2 ** (8 * struct.calcsize(form)))
        out[at : at + len(packed)] = packed
    elif kind == 6:
        out[at : at + length] = rng.bytes(length)
    elif rng.random() < 0.1:
        return rng.bytes(int(rng.integers(0, 4096)))
    else:
        del out[at : at + length]
    return bytes(out)


def _inside_zip(rng: np.random.Generator, data: bytes) -> bytes | None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    chosen = int(rng.integers(len(members)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (entry, content) in enumerate(members):
            if number == chosen:
                if rng.random() < 0.05:
                    continue
                content = _times(rng, content)
            archive.writestr(zipfile.ZipInfo(entry.filename), content, entry.compress_type)
    return out.getvalue()


def _mended_png(data: bytes) -> bytes:
    """The same chunks, as far as they can be followed, with checksums that fit."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + data[at:])


def _is_safetensors(data: bytes) -> bool:
    return len(data) > 9 and data[8:9] == b"{" and struct.unpack_from("<Q", data)[0] < len(data)


def _inside_safetensors(rng: np.random.Generator, data: bytes) -> bytes:
    end = 8 + struct.unpack_from("<Q", data)[0]
    header = damaged_text(rng, data[8:end])
    return struct.pack("<Q", len(header)) + header + data[end:]

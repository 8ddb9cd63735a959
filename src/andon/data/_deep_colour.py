"""16-bit colour, and TIFF of 8 bits, some rows at a time.

Pillow's colour images have 8 bits a channel, so OpenCV decodes what has 16.
A PNG or TIFF is cut into pieces of rows, each wrapped as a small file of its own, so that nothing but the rows at hand
is ever decoded at 16 bits. Pillow decodes each piece as well: what it finds must be what OpenCV finds, to the bits that
it has. Two kinds cannot be cut: an interlaced PNG, and a compressed TIFF in one piece; their rows come all at once.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFile, PngImagePlugin, TiffImagePlugin

from andon.core import DataError
from andon.data._pixels import rows_of

__all__ = ["come_in_pieces", "deep_pieces", "deep_rows", "stored_size", "tiff_rows"]

Rows = npt.NDArray[np.uint16]

_PIECE_BYTES = 2**20
_PNG_HEADER = struct.Struct(">IIBBBBB")
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
# TIFF tags (TIFF 6.0, sections 8, 14 and 15).
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PREDICTOR, _EXTRA = 273, 277, 278, 279, 317, 338
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_ORIENTATION, _PLANAR, _INKS = 274, 284, 332
_ASSOCIATED_ALPHA = 1
_PLAIN_COMPRESSIONS = {1, 5, 8, 32946, 32773}
"""None, LZW, deflate and PackBits: a piece needs nothing from elsewhere in the file."""


def deep_rows(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> Iterator[Rows]:
    """The image's rows from the top, uint16 ``[h, W, 3]`` each, as stored: not turned upright.

    Args:
        image: from Pillow, header read, pixels not loaded.
        file: where it comes from.

    Raises:
        DataError: damaged, of a kind that is not read, or decoded differently by the two decoders.
    """
    tags: Mapping[int, Any] = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.mode not in ("LA", "RGB", "RGBA", "RGBX") or _ASSOCIATED_ALPHA in _numbers(tags.get(_EXTRA, ())):
        raise DataError(f"{name}: this kind of 16-bit colour is not read; save it as a 16-bit PNG, or with 8 bits")
    # The limits hold for what Pillow read in the header; a crafted one could tell another decoder another size.
    size = stored_size(file)
    if sorted(size) != sorted(image.size):
        raise DataError(f"{name}: damaged image (its header names two sizes)")
    if isinstance(image, PngImagePlugin.PngImageFile):
        pieces = _png_pieces(file, name)
        plugin: type[ImageFile.ImageFile] = PngImagePlugin.PngImageFile
    else:
        pieces, plugin = _tiff_pieces(file, tags, size, name), TiffImagePlugin.TiffImageFile
    found = 0
    for piece, skip in pieces:
        rows = _decoded(piece, plugin, name)[skip:]
        found += len(rows)
        if rows.shape[1] != size[0] or found > size[1]:
            raise DataError(f"{name}: damaged image")
        yield rows
    if found != size[1]:
        raise DataError(f"{name}: damaged or truncated image")


def come_in_pieces(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether a TIFF of 8 bits, whose header is read, can be decoded by ``tiff_rows`` in less memory than at once.

    libtiff maps the whole file into memory, and what Pillow has decoded it turns upright by a copy.
    """
    tags: Mapping[int, Any] = image.tag_v2
    bits = set(_numbers(tags.get(_BITS, 8)))
    if bits != {8} or tags.get(_PLANAR, 1) != 1 or tags.get(_COMPRESSION, 1) not in _PLAIN_COMPRESSIONS:
        return False
    if image.mode not in ("L", "RGB", "RGBA", "RGBX", "CMYK") or _ASSOCIATED_ALPHA in _numbers(tags.get(_EXTRA, ())):
        return False
    if tags.get(_PHOTOMETRIC) not in (0, 1, 2, 5):  # grey, RGB, CMYK: YCbCr refers to other tags
        return False
    plain = tags.get(_COMPRESSION, 1) == 1
    pieces = len(_numbers(tags.get(_TILES, tags.get(_STRIPS, ()))))
    return (plain and tags.get(_ORIENTATION, 1) != 1) or (not plain and pieces > 1)


def deep_pieces(tags: Mapping[int, Any]) -> int:
    """In how many pieces a TIFF of 16-bit colour can be decoded; an uncompressed one in any number."""
    if tags.get(_COMPRESSION, 1) == 1 and _TILES not in tags:
        return 2**16
    return len(_numbers(tags.get(_TILES, tags.get(_STRIPS, ()))))


def tiff_rows(image: TiffImagePlugin.TiffImageFile, file: BinaryIO, name: str) -> Iterator[npt.NDArray[np.uint8]]:
    """The rows of a TIFF that ``come_in_pieces``, from the top, uint8 ``[h, W]`` or ``[h, W, 3]``, not turned upright.

    Raises:
        DataError: damaged.
    """
    tags: Mapping[int, Any] = dict(image.tag_v2)
    size = stored_size(file)
    if sorted(size) != sorted(image.size):
        raise DataError(f"{name}: damaged image (its header names two sizes)")
    found = 0
    for piece, _ in _tiff_pieces(file, tags, size, name):
        with TiffImagePlugin.TiffImageFile(io.BytesIO(piece)) as part:
            if part.mode != image.mode or part.size[0] != size[0]:
                raise DataError(f"{name}: damaged image")
            rows = np.asarray(part if part.mode == "L" else part.convert("RGB"))
        found += len(rows)
        if found > size[1]:
            raise DataError(f"{name}: damaged image")
        yield rows
    if found != size[1]:
        raise DataError(f"{name}: damaged or truncated image")


def _decoded(piece: bytes, plugin: type[ImageFile.ImageFile], name: str) -> Rows:
    """One piece by both decoders: ``[h, W, 3]``."""
    decoded = cv2.imdecode(np.frombuffer(piece, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise DataError(f"{name}: damaged image, or of a kind that is not read; save it as a 16-bit PNG")
    with plugin(io.BytesIO(piece)) as image:
        if decoded.shape[1::-1] != image.size:
            raise DataError(f"{name}: damaged image, or of a kind that is not read; save it as a 16-bit PNG")
        image.load()
        at = 0
        for part in rows_of(image):
            rough = np.asarray(part.convert("RGB"))
            rows: Rows = decoded[at : at + len(rough), :, 2::-1].astype(np.uint16)  # from BGR(A)
            if np.abs((rows >> 8).astype(np.int16) - rough).max() > 1:
                raise DataError(f"{name}: two decoders read different pixels in this image; save it as a 16-bit PNG")
            decoded[at : at + len(rough), :, :3] = rows
            at += len(rough)
    result: Rows = decoded[..., :3]  # type: ignore[assignment]
    return result


# --- PNG --------------------------------------------------------------------------------------------------------------


def _png_pieces(file: BinaryIO, name: str) -> Iterator[tuple[bytes, int]]:
    """(PNG, rows of it to leave out at the top): a piece begins with the last row of the one before, which its filters
    refer to."""
    file.seek(8)
    (length,) = struct.unpack(">I4x", file.read(8))
    header = file.read(length)
    width, height, depth, colour, _, _, interlace = _PNG_HEADER.unpack(header)
    if interlace:
        file.seek(0)
        yield file.read(), 0
        return
    line = 1 + width * _PNG_CHANNELS[colour] * depth // 8
    count = max(1, _PIECE_BYTES // line)
    stream = _inflated(_png_data(file, name), name)
    above, waiting = b"", bytearray()
    left = height
    while left:
        rows = min(count, left)
        while len(waiting) < rows * line:
            more = next(stream, b"")
            if not more:
                raise DataError(f"{name}: damaged or truncated image (its rows end too early)")
            waiting += more
        lines = bytes(waiting[: rows * line])
        del waiting[: rows * line]
        extra = 1 if above else 0
        piece = _png(header[:4] + struct.pack(">I", rows + extra) + header[8:], above + lines)
        yield piece, extra
        left -= rows
        if left:
            above = b"\0" + _last_row(piece, name)
    for _ in stream:  # to its checksum; what is behind the last row is nobody's
        pass


def _last_row(piece: bytes, name: str) -> bytes:
    """The last row of a PNG of 16 bits as it lies in a file without filter."""
    decoded = cv2.imdecode(np.frombuffer(piece, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise DataError(f"{name}: damaged image")
    row = decoded[-1]
    colour = piece[8 + 8 + 9]
    order = {2: [2, 1, 0], 4: [2, 3], 6: [2, 1, 0, 3]}[colour]
    return np.ascontiguousarray(row[:, order]).astype(">u2").tobytes()


def _png(header: bytes, lines: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = chunk(b"IDAT", zlib.compress(lines, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def _png_data(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The compressed bytes, checksums compared."""
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise DataError(f"{name}: damaged or truncated image (it has no end)")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        checksum = zlib.crc32(kind)
        while length:
            data = file.read(min(length, 2**16))
            if not data:
                raise DataError(f"{name}: damaged or truncated image (a part of it ends too early)")
            checksum = zlib.crc32(data, checksum)
            length -= len(data)
            if kind == b"IDAT":
                yield data
        # What is not pixels may be damaged, as Pillow sees it.
        if file.read(4) != struct.pack(">I", checksum) and kind[:1].isupper():
            raise DataError(f"{name}: damaged image (a checksum is wrong)")


def _inflated(data: Iterator[bytes], name: str) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    for compressed in data:
        waiting = compressed
        while waiting and not stream.eof:
            found = stream.decompress(waiting, 2**18)
            waiting = stream.unconsumed_tail
            if found:
                yield found
    if not stream.eof:
        raise DataError(f"{name}: damaged or truncated image (its pixels end too early)")


# --- TIFF -------------------------------------------------------------------------------------------------------------


def stored_size(file: BinaryIO) -> tuple[int, ...]:
    """(width, height) in the header of a PNG or TIFF, from the places where every decoder must look.

    Empty where a TIFF names one of them twice, or in an unusual type: decoders differ in what they make of it.
    """
    file.seek(0)
    start = file.read(33)
    if start.startswith(b"\x89PNG"):
        return struct.unpack_from(">II", start, 16) if start[12:16] == b"IHDR" else ()
    order = "<" if start.startswith(b"II") else ">"
    if 43 in start[2:4]:  # BigTIFF
        head, count, entry = f"{order}8xQ", f"{order}Q", f"{order}HHQ8s"
    else:
        head, count, entry = f"{order}4xI", f"{order}H", f"{order}HHI4s"
    (at,) = struct.unpack_from(head, start)
    file.seek(at)
    (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
    found: list[tuple[int, int]] = []
    for _ in range(entries):
        tag, kind, length, value = struct.unpack(entry, file.read(struct.calcsize(entry)))
        if tag in (_WIDTH, _HEIGHT):
            if length != 1 or kind not in (3, 4):
                return ()
            found.append((tag, struct.unpack_from(order + {3: "H", 4: "I"}[kind], value)[0]))
    return tuple(size for _, size in sorted(found)) if [tag for tag, _ in sorted(found)] == [_WIDTH, _HEIGHT] else ()


def _tiff_pieces(
    file: BinaryIO, tags: Mapping[int, Any], size: tuple[int, ...], name: str
) -> Iterator[tuple[bytes, int]]:
    """(TIFF, 0) of some strips, rows of an uncompressed one, or one row of tiles."""
    width, height = size
    line = width * _depth(tags) // 8 * int(tags.get(_SAMPLES, 1))
    tiled = _TILE_WIDTH in tags
    offsets, counts = (
        _numbers(tags[_TILES if tiled else _STRIPS]),
        _numbers(tags[_TILE_BYTES if tiled else _STRIP_BYTES]),
    )
    rows = int(tags[_TILE_HEIGHT]) if tiled else min(int(tags.get(_ROWS, height)), height)
    across = -(-width // int(tags[_TILE_WIDTH])) if tiled else 1
    if rows < 1 or len(offsets) != len(counts) or len(offsets) != across * -(-height // rows):
        raise DataError(f"{name}: damaged image (its table of pieces does not fit its size)")
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    end = file.seek(0, io.SEEK_END)
    if any(start + count > end for start, count in zip(offsets, counts, strict=True)):
        raise DataError(f"{name}: damaged or truncated image (it ends too early)")
    if not tiled and tags.get(_COMPRESSION, 1) == 1:
        offsets, counts, rows = _cut_rows(offsets, counts, rows, height, line)
    # As many rows of pieces at a time as are decoded in a few megabytes.
    step = 1 if tiled else max(1, _PIECE_BYTES // (rows * line))
    for first in range(0, len(offsets) // across, step):
        chosen = slice(first * across, (first + step) * across)
        data = []
        for start, count in zip(offsets[chosen], counts[chosen], strict=True):
            file.seek(start)
            data.append(file.read(count))
        yield _tiff(tags, (width, min(rows * step, height - first * rows)), rows, data, order), 0


def _cut_rows(
    offsets: tuple[int, ...], counts: tuple[int, ...], rows: int, height: int, line: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Uncompressed strips of many rows as strips of one row each."""
    if rows * line <= _PIECE_BYTES:
        return offsets, counts, rows
    starts = tuple(offsets[y // rows] + y % rows * line for y in range(height))
    if any(count < min(rows, height - k * rows) * line for k, count in enumerate(counts)):
        raise ValueError("a strip ends too early")
    return starts, (line,) * height, 1


def _tiff(tags: Mapping[int, Any], size: tuple[int, int], rows: int, data: list[bytes], order: str) -> bytes:
    """A TIFF file, in this file's order of bytes, of pieces as they are."""
    kept = {
        tag: _numbers(tags[tag])
        for tag in (_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _PREDICTOR, _EXTRA, _INKS)
        if tag in tags
    }
    fields: dict[int, tuple[int, ...]] = {
        **kept,
        _WIDTH: (size[0],),
        _HEIGHT: (size[1],),
        _BITS: (_depth(tags),) * int(tags.get(_SAMPLES, 1)),
        _SAMPLES: (int(tags.get(_SAMPLES, 1)),),
        _PLANAR: (1,),
    }
    places = []
    at = 8
    for piece in data:
        places.append(at)
        at += len(piece) + len(piece) % 2
    lengths = tuple(map(len, data))
    if _TILE_WIDTH in tags:
        fields |= {_TILE_WIDTH: _numbers(tags[_TILE_WIDTH]), _TILE_HEIGHT: _numbers(tags[_TILE_HEIGHT])}
        fields |= {_TILES: tuple(places), _TILE_BYTES: lengths}
    else:
        fields |= {_ROWS: (rows,), _STRIPS: tuple(places), _STRIP_BYTES: lengths}
    body = b"".join(piece + b"\0" * (len(piece) % 2) for piece in data)
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at) + body + _directory(fields, at, order)


def _directory(fields: Mapping[int, tuple[int, ...]], at: int, order: str) -> bytes:
    """The table of tags at an offset, all values 32 bits but for those that must have 16, and what it points to."""
    table, beyond = b"", b""
    free = at + 2 + 12 * len(fields) + 4
    for tag in sorted(fields):
        values = fields[tag]
        short = tag in (_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PREDICTOR, _EXTRA, _PLANAR, _INKS)
        packed = struct.pack(f"{order}{len(values)}{'H' if short else 'I'}", *values)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", free + len(beyond))
            beyond += packed
        else:
            place = packed.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, 3 if short else 4, len(values)) + place
    return struct.pack(f"{order}H", len(fields)) + table + b"\0\0\0\0" + beyond


def _depth(tags: Mapping[int, Any]) -> int:
    """Bits of a sample, 8 or 16: pieces are made of no others."""
    return 8 if set(_numbers(tags.get(_BITS, 8))) == {8} else 16


def _numbers(value: Any) -> tuple[int, ...]:
    """A tag's values: Pillow gives a single one without a tuple."""
    return value if isinstance(value, tuple) else (value,)

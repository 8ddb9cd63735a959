"""What the header of a JPEG 2000 codestream says, from the place where every decoder must look (ISO 15444-1, A.5.1)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from andon.core import DataError

__all__ = ["check_codestream", "wavelet_levels"]

_START = b"\xff\x4f\xff\x51"
"""SOC, and SIZ that must follow it."""
_MAX_TILES = 4096
_TILE_PART, _TILE_DATA = b"\xff\x90", b"\xff\x93"


def check_codestream(data: bytes, size: tuple[int, int], name: str) -> None:
    """DataError for what would be read wrongly, or decoded at another size than was looked at.

    Args:
        data: the whole file.
        size: (width, height) that were found to be within the limits.
        name: of the file, for messages.
    """
    at = data.find(_START)
    if at < 0 or data.count(_START) != 1:
        raise DataError(f"{name}: damaged image (no codestream, or several)")
    fields = struct.unpack_from(">HHIIIIIIIIH", data, at + 4)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = fields[2:]
    if (right - left, bottom - top) != size:
        raise DataError(f"{name}: damaged image (its header names two sizes)")
    across = -(-(right - tile_left) // max(tile_width, 1))
    down = -(-(bottom - tile_top) // max(tile_height, 1))
    if not 0 < across * down <= _MAX_TILES:
        raise DataError(f"{name}: {across * down} tiles are too many (limit {_MAX_TILES:,}); save it as PNG")
    depths, steps = set(), set()
    for k in range(components):
        depth, step_x, step_y = struct.unpack_from(">BBB", data, at + 4 + 38 + 3 * k)
        depths.add(depth)
        steps |= {step_x, step_y}
    if any(depth & 0x80 for depth in depths):
        raise DataError(f"{name}: what is white is unknown for signed pixels; save 8 or 16 bits unsigned")
    if components > 1 and depths != {7}:
        raise DataError(f"{name}: JPEG 2000 in colour is read with 8 bits only; save it as a 16-bit PNG")
    if components == 1 and max(depths, default=0) > 15:
        raise DataError(f"{name}: JPEG 2000 is read with up to 16 bits only; save it as a 16-bit PNG")
    if steps != {1} and components == 1:
        raise DataError(f"{name}: a JPEG 2000 whose pixels are sampled; save it as PNG")


def wavelet_levels(data: bytes) -> int:
    """How often a codestream can be halved: the fewest levels that any of its headers names (A.6.1, A.6.2)."""
    fewest = 32
    for header in _headers(data):
        for found in re.finditer(rb"\xff\x52.{7}(.)|\xff\x53", header, re.DOTALL):
            # A header of its own for one channel (COC) is too rare to be looked into.
            fewest = min(fewest, found[1][0] if found[1] is not None else 0)
    return fewest if fewest < 32 else 0


def _headers(data: bytes) -> Iterator[bytes]:
    """The main header, and that of each tile-part."""
    at = data.find(_START)
    end = data.find(_TILE_PART, at)
    yield data[at:end]
    at = end
    while 0 <= at < len(data) - 12 and data[at : at + 2] == _TILE_PART:
        yield data[at : data.find(_TILE_DATA, at)]
        (length,) = struct.unpack_from(">I", data, at + 6)
        if length < 12:
            return
        at += length

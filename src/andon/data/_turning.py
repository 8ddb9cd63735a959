"""Turning an image upright in the memory that it lies in: there never are two images."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["UPRIGHT", "turned"]

_TILE = 32
_SMALL = 2**23
"""Up to so many bytes an image is copied, which is simpler and faster."""
_ROWS_BYTES = 2**21

# EXIF orientation 2..8: whether rows and columns change places, and what is mirrored after that: (rows, columns).
_STEPS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
UPRIGHT = frozenset(_STEPS)
"""EXIF orientations that are not upright yet."""


def turned(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """An image with EXIF orientation 2..8 upright; a large one's memory is the result's.

    Args:
        values: uint8 or uint16 ``[H, W]`` or ``[H, W, 3]``; not to be used any more.
    """
    swap, rows, columns = _STEPS[orientation]
    thin = min(values.shape[:2]) < _TILE
    if thin or values.nbytes <= _SMALL or not (values.flags.c_contiguous and values.flags.writeable):
        upright = values.swapaxes(0, 1) if swap else values
        return np.ascontiguousarray(upright[:: -1 if rows else 1, :: -1 if columns else 1])
    if swap:
        values = _transposed(values)
    if columns:
        step = _step(values.shape[1:], values.itemsize)
        for top in range(0, len(values), step):
            values[top : top + step] = values[top : top + step, ::-1].copy()
    if rows:
        _mirror_rows(values)
    return values


def _step(row: tuple[int, ...], itemsize: int) -> int:
    """How many rows are moved at a time."""
    return max(1, _ROWS_BYTES // (int(np.prod(row)) * itemsize))


def _mirror_rows(values: npt.NDArray[Any]) -> None:
    height, step = len(values), _step(values.shape[1:], values.itemsize)
    for top in range(0, height // 2, step):
        count = min(step, height // 2 - top)
        upper, lower = values[top : top + count], values[height - top - count : height - top]
        kept = upper[::-1].copy()
        upper[:] = lower[::-1]
        lower[:] = kept


def _transposed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows as columns: strips become rows of square tiles, the tiles change places, and become strips again.

    What is beyond the last whole tile, to the right and below, is set aside meanwhile.
    """
    (height, width), deep = values.shape[:2], values.shape[2:]
    flat = values.reshape(-1)
    each = int(np.prod(deep, dtype=int))
    down, across = height // _TILE, width // _TILE
    inner_height, inner_width = down * _TILE, across * _TILE
    right = values[:, inner_width:].swapaxes(0, 1).copy()
    below = values[inner_height:, :inner_width].swapaxes(0, 1).copy()
    main = flat[: inner_height * inner_width * each]
    size = _TILE * inner_width * each
    for k in range(down):
        strip = cv2.transpose(np.ascontiguousarray(values[k * _TILE : (k + 1) * _TILE, :inner_width]))
        main[k * size : (k + 1) * size] = strip.reshape(-1)
    _transpose_tiles(main.reshape(down * across, -1), down, across)
    size = _TILE * inner_height * each
    for k in range(across):
        tiles = main[k * size : (k + 1) * size].reshape(down, _TILE, _TILE * each)
        main[k * size : (k + 1) * size] = tiles.swapaxes(0, 1).reshape(-1)
    result = flat.reshape(width, height, *deep)
    for k in reversed(range(across)):  # from the end: each strip moves to where nothing is needed any more
        rows = slice(k * _TILE, (k + 1) * _TILE)
        strip = main[k * size : (k + 1) * size].reshape(_TILE, inner_height, *deep).copy()
        result[rows, :inner_height] = strip
        result[rows, inner_height:] = below[rows]
    result[inner_width:] = right
    return result


def _transpose_tiles(tiles: npt.NDArray[Any], down: int, across: int) -> None:
    """Tiles ``[down × across, …]`` in the order of ``[across × down]``, along the cycles of the permutation."""
    count = down * across
    moved = bytearray(count)
    for start in range(count):
        if moved[start]:
            continue
        kept, at = tiles[start].copy(), start
        while True:
            moved[at] = 1
            source = at % down * across + at // down
            if source == start:
                tiles[at] = kept
                break
            tiles[at] = tiles[source]
            at = source

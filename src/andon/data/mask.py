"""What the pixels of a mask's file mean.

A mask says of each pixel whether it is marked, in one of many ways: grey values, colours, a palette, an opacity. It is
read where one reading is possible, and refused otherwise:

===========================  ===========================================================================================
grey, colour, palette        marked where it is not black; a colour mask's value is its one positive value over red,
                             green and blue, or the highest where any value means the same
palette without black        marked where the index is not 0, where that leaves some pixels unmarked
opacity that varies          where all that is not black is opaque it says nothing new; of a mask without any black
                             pixel it says what is marked (white, more or less transparent). Anything else is refused
JPEG, other lossy kinds      black and white, divided at 128; refused where much of it is neither
16 bits                      0..255, or 0 and 65535 (read as 255); any, where any value means the same
===========================  ===========================================================================================
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from andon.core import DataError
from andon.data._pixels import narrowed

__all__ = ["is_lossy", "mask_values", "opacity", "palette_indices", "value_counts"]

_PIXELS_AT_A_TIME = 2**19
_WAY_OUT = "save it as a grey image, 0 where nothing is marked"
_DIFFER = "mark different pixels, and which count is unknown"
_BLACK, _WHITE = 48, 208
"""Lossy masks: values up to the first count as black, from the second on as white; in between lie blurred edges."""
_MOST_BLURRED = 0.5
"""Largest share of pixels, of those that are not black, that may be neither black nor white."""

_Values = npt.NDArray[Any]
_Bytes = npt.NDArray[np.uint8]


def mask_values(
    values: _Values, alpha: _Bytes | None, indices: _Bytes | None, *, lossy: bool, any_value: bool, name: str
) -> _Bytes:
    """The values of a mask, uint8 ``[H, W]``, 0 = not marked.

    Args:
        values: uint8 or uint16 ``[H, W]`` or ``[H, W, 3]``, as they look; not to be used any more.
        alpha: opacity ``[H, W]``; None where there is none.
        indices: of a palette ``[H, W]``; None where there is none.
        lossy: whether the file's kind keeps values only roughly.
        any_value: whether all positive values mean the same.
        name: of the file, for messages.

    Raises:
        DataError: no reading is possible, or several are.
    """
    grey, mixed = _one_plane(values)
    if lossy:
        grey, mixed = _black_and_white(grey, name), False
    varies = alpha is not None and alpha.min() != alpha.max()
    by_index = indices is not None and bool(grey.all()) and not indices.all()
    if alpha is not None and varies:
        grey = _with_opacity(grey, alpha, name)
        if indices is not None and by_index and not np.array_equal(grey > 0, indices > 0):
            raise DataError(f"{name}: the palette and the transparency of this mask {_DIFFER}; {_WAY_OUT}")
    elif indices is not None and by_index:
        if not any_value:
            raise DataError(f"{name}: the palette of this mask has no black, so its values are unknown; {_WAY_OUT}")
        grey = indices
    if mixed and not any_value:
        raise DataError(f"{name}: a pixel of this mask has two different positive values; it may have one; {_WAY_OUT}")
    if any_value and grey.all() and grey.min() != grey.max():
        raise DataError(f"{name}: no pixel of this mask is black, so it is unknown which are not marked; {_WAY_OUT}")
    return _in_eight_bits(grey, any_value, name)


def value_counts(values: _Bytes) -> npt.NDArray[np.int64]:
    """How many pixels of uint8 ``[H, W]`` have each value, ``[256]``; ``bincount`` of all would take 8 bytes each."""
    counts = np.zeros(256, np.int64)
    step = max(1, _PIXELS_AT_A_TIME // values.shape[1])
    for top in range(0, len(values), step):
        counts += np.bincount(values[top : top + step].ravel(), minlength=256)
    return counts


def _one_plane(values: _Values) -> tuple[_Values, bool]:
    """The highest value of each pixel, and whether any pixel has two different positive ones."""
    if values.ndim == 2:
        return values, False
    highest, mixed = np.empty(values.shape[:2], values.dtype), False
    step = max(1, _PIXELS_AT_A_TIME // values.shape[1])
    for top in range(0, len(values), step):
        # By planes: a reduction over an axis of three is many times slower.
        planes = [np.ascontiguousarray(values[top : top + step, :, k]) for k in range(3)]
        most = highest[top : top + step] = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
        mixed = mixed or any(bool(np.any((plane != 0) & (plane != most))) for plane in planes)
    return highest, mixed


def _black_and_white(grey: _Values, name: str) -> _Values:
    """Values that a lossy kind has blurred, as 0 and 255; DataError where they were not black and white."""
    if grey.dtype != np.uint8:
        raise DataError(f"{name}: a mask of 16 bits in a lossy kind of file; save it as PNG")
    counts = value_counts(grey)
    between, white = int(counts[_BLACK + 1 : _WHITE].sum()), int(counts[_WHITE:].sum())
    if between > _MOST_BLURRED * (between + white) and between + white > 0:
        # The edges of small regions are blurred, so that all of them are little else: refused as well.
        raise DataError(
            f"{name}: a lossy kind of file (JPEG) keeps masks only where they are black and white, which this one is "
            "not; save it as PNG"
        )
    return np.where(grey >= 128, np.uint8(255), np.uint8(0))


def _with_opacity(grey: _Values, alpha: _Bytes, name: str) -> _Values:
    """Values where the opacity varies: two carriers of which one must say it."""
    marked = grey > 0
    seen = marked & (alpha > 0)
    if not marked.any():
        raise DataError(
            f"{name}: the mask is black all over and only its transparency varies: whether opaque or transparent is "
            f"marked is unknown; {_WAY_OUT}"
        )
    constant = grey.min() == grey.max()
    if np.array_equal(marked, seen) and not (constant and marked.all()):
        return grey
    if marked.all() and seen.any() and not seen.all():
        # Nothing is black, so what is transparent is not marked; in between, as it looks on black.
        wide: _Values = grey.astype(np.uint16 if grey.dtype == np.uint8 else np.uint32)
        wide *= alpha
        wide += 254
        wide //= 255
        return wide.astype(grey.dtype)
    raise DataError(f"{name}: the colours and the transparency of this mask {_DIFFER}; {_WAY_OUT}")


def _in_eight_bits(grey: _Values, any_value: bool, name: str) -> _Bytes:
    if grey.dtype == np.uint8:
        return grey
    highest = int(grey.max())

    def convert(rows: _Values) -> _Bytes:
        if highest > 255 and not any_value and not np.all((rows == 0) | (rows == 65535)):
            raise DataError(f"{name}: a 16-bit mask may hold 0..255, or 0 and 65535; this one reaches {highest}")
        return np.minimum(rows, 255).astype(np.uint8)

    return narrowed(grey, convert)


# --- what Pillow knows of a file --------------------------------------------------------------------------------------


def opacity(image: Image.Image) -> _Bytes | None:
    """The opacity of a decoded image, uint8 ``[H, W]``; None where it has none."""
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("RGBA")
    bands = image.getbands()
    band = next((band for band in ("A", "a") if band in bands), None)
    return None if band is None else np.asarray(image.getchannel(band))


def palette_indices(image: Image.Image) -> _Bytes | None:
    """The palette's indices of a decoded image, uint8 ``[H, W]``; None where it has no palette."""
    return np.asarray(image.getchannel(0)) if image.mode in ("P", "PA") else None


def is_lossy(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Whether a file is of a kind that keeps values only roughly: JPEG, also in a TIFF, lossy WebP, JPEG 2000."""
    if image.format in ("JPEG", "MPO"):
        return True
    if image.format == "TIFF":
        return str(image.info.get("compression", "")) in ("jpeg", "tiff_jpeg", "webp")
    if image.format not in ("WEBP", "JPEG2000"):
        return False
    file.seek(0)
    data = file.read()
    if image.format == "WEBP":
        return _has_chunk(data, b"VP8 ")
    # JPEG 2000: the transformation in the first COD segment is 0 for the irreversible one (ISO 15444-1, A.6.1).
    found = re.search(rb"\xff\x52.{11}(.)", data, re.DOTALL)
    return found is None or found[1] == b"\0"


def _has_chunk(data: bytes, name: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] == name:
            return True
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return False

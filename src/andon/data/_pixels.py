"""From an image that Pillow has opened to an array, without ever holding both.

What is converted is converted some rows at a time, and 8-bit colour is decoded into the memory that the
result will have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from andon.core import DataError

__all__ = ["joined", "let_go", "load_colour", "load_webp", "resized", "rows_of", "to_eight_bits"]

_ROWS_PIXELS = 2**19
"""Pixels that are converted at a time."""


def let_go(image: ImageFile.ImageFile) -> None:
    """Frees the pixels; ``close`` would close the caller's file."""
    image.im = None  # type: ignore[assignment]


def rows_of(image: Image.Image) -> Iterator[Image.Image]:
    """The image in pieces of some rows: whatever is made of them is never there as a whole beside it."""
    width, height = image.size
    step = max(1, _ROWS_PIXELS // width)
    for top in range(0, height, step):
        yield image.crop((0, top, width, min(top + step, height)))


def joined(pieces: Iterator[npt.NDArray[Any]], height: int) -> npt.NDArray[Any]:
    """Pieces of rows as one array; ``height`` is the most rows that may come."""
    values, at = None, 0
    for rows in pieces:
        if values is None:
            values = np.empty((height, *rows.shape[1:]), rows.dtype)
        values[at : at + len(rows)] = rows
        at += len(rows)
    assert values is not None
    return values if at == height else values[:at].copy()


def load_colour(image: ImageFile.ImageFile) -> npt.NDArray[np.uint8]:
    """8-bit colour, ``[H, W, 3]``.

    Pillow keeps four bytes a pixel. They are put into memory of ours, where the three that are wanted then move
    together: there never are two images.
    """
    mode = "CMYK" if image.mode == "CMYK" else "RGBX"
    width, height = image.size
    memory = np.zeros(height * width * 4, np.uint8)
    ours = Image.frombuffer(mode, (width, height), memory, "raw", mode, 0, 1).im
    image.im = ours
    image.load()
    assert image.im is ours  # or what follows would be of an empty image
    let_go(image)
    del ours
    step = max(1, _ROWS_PIXELS // width)
    for top in range(0, height, step):
        count = min(step, height - top)
        rows = memory[top * width * 4 : (top + count) * width * 4].reshape(count, width, 4)
        if mode == "CMYK":
            colours = Image.frombuffer(mode, (width, count), rows.copy(), "raw", mode, 0, 1)
            colour = np.asarray(colours.convert("RGB"))
        else:
            colour = rows[..., :3]
        memory[top * width * 3 : (top + count) * width * 3] = colour.reshape(-1)
    del rows, colour
    memory.resize(height * width * 3, refcheck=False)  # gives the fourth part back
    return memory.reshape(height, width, 3)


def load_webp(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> npt.NDArray[np.uint8]:
    """A WebP's colours, ``[H, W, 3]``, by OpenCV: Pillow would take five times their memory for the same values."""
    size = image.size
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint8 or values.ndim != 3 or values.shape[1::-1] != size:
        raise DataError(f"{name}: damaged or truncated image")
    memory: npt.NDArray[np.uint8] = values.reshape(-1)  # type: ignore[assignment]
    line, step = size[0] * 3, max(1, _ROWS_PIXELS // size[0])
    for top in range(0, size[1], step):  # without alpha, from BGR, within the same memory
        rows = values[top : top + step]
        memory[top * line : (top + len(rows)) * line] = rows[..., 2::-1].reshape(-1)
    return memory[: size[1] * line].reshape(size[1], size[0], 3)


def to_eight_bits(values: npt.NDArray[np.uint16], white: int) -> npt.NDArray[np.uint8]:
    """0..white to 0..255, rounded to nearest, by a table."""
    table = (np.arange(white + 1, dtype=np.uint32) * 255 + white // 2) // white
    return table.astype(np.uint8)[values]


def resized(values: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """``[H, W]`` or ``[H, W, 3]`` at (height, width)."""
    if values.shape[:2] == size:
        return values
    if values.ndim == 3 and values.size > 8 * _ROWS_PIXELS:
        # Plane by plane, which gives the same: Pillow copies what it resizes.
        planes = [resized(np.ascontiguousarray(values[..., k]), size) for k in range(values.shape[2])]
        return np.stack(planes, axis=-1)
    image = (
        Image.fromarray(values)
        if values.ndim == 3
        else Image.frombuffer("L", values.shape[::-1], values, "raw", "L", 0, 1)
    )
    return np.array(image.resize(size[::-1], Image.Resampling.BILINEAR))

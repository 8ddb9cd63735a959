"""From an image that Pillow has opened to an array, without ever holding both.

What is converted is converted some rows at a time, and 8-bit colour is decoded into the memory that the
result will have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from andon._tools.files import path_of
from andon.core import DataError

__all__ = [
    "has_pixels",
    "joined",
    "let_go",
    "load_colour",
    "load_plane",
    "load_webp",
    "narrowed",
    "resized",
    "rows_of",
    "to_eight_bits",
]

_ROWS_PIXELS = 2**19
"""Pixels that are converted at a time."""


def let_go(image: ImageFile.ImageFile) -> None:
    """Frees the pixels; ``close`` would close the caller's file."""
    image.im = None  # type: ignore[assignment]


def has_pixels(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow has decoded the image and it was not let go."""
    return getattr(image, "_im", None) is not None


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


def load_colour(
    image: ImageFile.ImageFile, *, opacity: bool = False
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """8-bit colour, ``[H, W, 3]``, and its opacity, ``[H, W]``, where it is asked for.

    Pillow keeps four bytes a pixel. They are put into memory of ours, where the three that are wanted then move
    together: there never are two images. Grey with opacity lies there as colour.
    """
    mode = "CMYK" if image.mode == "CMYK" else "RGBX"
    width, height = image.size
    memory = np.zeros(height * width * 4, np.uint8)
    _load_into(image, memory, mode)
    alpha = np.empty((height, width), np.uint8) if opacity else None
    step = max(1, _ROWS_PIXELS // width)
    for top in range(0, height, step):
        count = min(step, height - top)
        rows = memory[top * width * 4 : (top + count) * width * 4].reshape(count, width, 4)
        if alpha is not None:
            alpha[top : top + count] = rows[..., 3]
        if mode == "CMYK":
            colours = Image.frombuffer(mode, (width, count), rows.copy(), "raw", mode, 0, 1)
            colour = np.asarray(colours.convert("RGB"))
        else:
            colour = cv2.cvtColor(rows, cv2.COLOR_RGBA2RGB)  # a copy of rows[..., :3], ten times as fast
        memory[top * width * 3 : (top + count) * width * 3] = colour.reshape(-1)
    del rows, colour
    memory.resize(height * width * 3, refcheck=False)  # gives the fourth part back
    return memory.reshape(height, width, 3), alpha


def load_plane(image: ImageFile.ImageFile) -> npt.NDArray[Any]:
    """Grey of mode "L" or "I;16", ``[H, W]``, uint8 or uint16, decoded into the memory of the result."""
    width, height = image.size
    memory = np.zeros(height * width, np.uint8 if image.mode == "L" else np.dtype("<u2"))
    _load_into(image, memory, image.mode)
    return memory.reshape(height, width)


def _load_into(image: ImageFile.ImageFile, memory: npt.NDArray[Any], mode: str) -> None:
    ours = Image.frombuffer(mode, image.size, memory, "raw", mode, 0, 1).im
    image.im = ours
    image.load()
    assert image.im is ours  # or what follows would be of an empty image
    let_go(image)


def load_webp(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> npt.NDArray[np.uint8]:
    """A WebP's colours, ``[H, W, 3]``, by OpenCV: Pillow would take five times their memory for the same values."""
    size, channels = image.size, len(image.getbands())
    image._decoder = None  # type: ignore[attr-defined]  # has the file's bytes and room for four images
    values = _webp_values(file, (size[1], size[0], channels))
    if values is None or values.dtype != np.uint8 or values.ndim != 3 or values.shape[1::-1] != size:
        raise DataError(f"{name}: damaged or truncated image")
    memory: npt.NDArray[np.uint8] = values.reshape(-1)
    line, step = size[0] * 3, max(1, _ROWS_PIXELS // size[0])
    for top in range(0, size[1], step):  # without alpha, from BGR, within the same memory
        rows = values[top : top + step]
        memory[top * line : (top + len(rows)) * line] = rows[..., 2::-1].reshape(-1)
    return _shrunk(values, memory[: size[1] * line]).reshape(size[1], size[0], 3)


def _webp_values(file: BinaryIO, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    """BGR or BGRA as OpenCV decodes it: into an array of ours where it reads the file itself, which is half the memory.

    None where it cannot be read.
    """
    if isinstance(file, BufferedReader):
        ours = np.empty(shape, np.uint8)
        try:
            found: Any = cv2.imread(path_of(file), ours, cv2.IMREAD_UNCHANGED)
        except (cv2.error, TypeError):  # before OpenCV 4.11
            pass
        else:
            return found if found is None or isinstance(found, np.ndarray) else None
    file.seek(0)
    decoded: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded


def narrowed(
    values: npt.NDArray[np.uint16], convert: Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """16 bits made 8, some rows at a time, in the same memory; ``values`` is not to be used any more."""
    height, width = values.shape
    step = max(1, _ROWS_PIXELS // width)
    if not (values.flags.c_contiguous and values.flags.writeable):
        return joined((convert(values[top : top + step]) for top in range(0, height, step)), height)
    memory: npt.NDArray[np.uint8] = values.reshape(-1).view(np.uint8)
    for top in range(0, height, step):
        rows = convert(values[top : top + step])
        memory[top * width : (top + len(rows)) * width] = rows.reshape(-1)
    return _shrunk(values, memory[: height * width]).reshape(height, width)


def _shrunk(whole: npt.NDArray[Any], part: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The first bytes of an array that nobody uses any more; the rest of its memory is given back."""
    owner: Any = whole if whole.base is None else whole.base
    if not (isinstance(owner, np.ndarray) and owner.flags.owndata and owner.nbytes == whole.nbytes):
        return part
    length = part.size
    del part
    owner.resize(-(-length // owner.itemsize), refcheck=False)
    return owner.view(np.uint8)[:length]


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

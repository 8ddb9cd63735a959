"""What decoding takes at its peak, by the kind of file: the bytes that the budget of all threads counts.

``benchmarks/bench_decode_memory.py`` measures every kind in a process of its own and compares.
"""

from __future__ import annotations

from os import fstat
from typing import Any, BinaryIO

from PIL import GifImagePlugin, ImageFile, Jpeg2KImagePlugin, JpegImagePlugin, TiffImagePlugin, WebPImagePlugin

from andon.data._deep_colour import come_in_pieces, deep_pieces

__all__ = ["decoding_bytes", "has_several_scans"]

_COMPRESSION, _ORIENTATION, _PLANAR = 259, 274, 284  # TIFF 6.0, section 8
_ALWAYS = 2**24
"""Rows at hand, tables, buffers of the decoders."""


def decoding_bytes(
    image: ImageFile.ImageFile, file: BinaryIO, *, deep: bool, stored: int | None = None, mask: bool = False
) -> int:
    """Bytes at the peak, the result among them: never less than what was measured.

    Args:
        image: its header read, pixels not loaded.
        file: where it comes from.
        deep: whether it is colour of 16 bits.
        stored: pixels in the file, where it is decoded at a smaller size.
        mask: whether it is read as a mask: what is opaque, and the indices of a palette, are wanted as well.
    """
    pixels = image.size[0] * image.size[1]
    bytes_each, more = 4.0, _ALWAYS
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        if has_several_scans(image, file):
            more += int(2 * _samples(image) * (pixels if stored is None else stored))  # all coefficients, 16 bits each
    elif isinstance(image, WebPImagePlugin.WebPImageFile):
        # Lossless kinds are decoded beside the result, 4 bytes a pixel; masks by Pillow, which keeps four images.
        bytes_each = 20 if mask else 8
        more += 4 * _length(file)
    elif isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        bytes_each = 26
        more += 2 * _length(file)
    elif isinstance(image, GifImagePlugin.GifImageFile):
        bytes_each = 8
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        bytes_each, more = _tiff(image, file, deep)
    elif deep and image.info.get("interlace"):
        bytes_each, more = 30, more + 2 * _length(file)
    elif image.mode in ("PA", "YCbCr", "RGBa"):
        bytes_each = 8
    if mask:
        apart = image.mode in ("P", "PA") or "transparency" in image.info
        bytes_each += 12 if deep else 8 if apart else 2
    return int(pixels * bytes_each) + more


def _tiff(image: TiffImagePlugin.TiffImageFile, file: BinaryIO, deep: bool) -> tuple[float, int]:
    """Bytes a pixel, and those beside."""
    tags: dict[int, Any] = dict(image.tag_v2)
    if deep:
        return (30, _ALWAYS + 2 * _length(file)) if deep_pieces(tags) == 1 else (4, _ALWAYS)
    if come_in_pieces(image):
        return 4, _ALWAYS
    mapped = 0 if tags.get(_COMPRESSION, 1) == 1 else _length(file)  # libtiff maps the file
    copied = tags.get(_ORIENTATION, 1) != 1 or tags.get(_PLANAR, 1) != 1 or image.mode in ("PA", "YCbCr", "RGBa")
    return (12 if copied else 5), _ALWAYS + 2 * mapped


def has_several_scans(image: JpegImagePlugin.JpegImageFile, file: BinaryIO) -> bool:
    """Whether the pixels of a JPEG come in several passes: progressive, or a channel after the other.

    All of it is kept then until the last has come.
    """
    if image.info.get("progressive"):
        return True
    at = file.tell()
    # Pillow has read up to the end of the first scan's header, whose length says how many channels it has.
    file.seek(max(0, at - 16))
    header = file.read(at - max(0, at - 16))
    file.seek(at)
    whole = 6 + 2 * image.layers
    return header[-whole - 2 : -whole + 2] != b"\xff\xda" + whole.to_bytes(2, "big")


def _samples(image: JpegImagePlugin.JpegImageFile) -> float:
    """Samples a pixel: 1.5 of a JPEG whose colours are stored at half the size in both directions."""
    factors = [(across, down) for _, across, down, _ in image.layer]
    most = max((a for a, _ in factors), default=1) * max((d for _, d in factors), default=1)
    return sum(a * d for a, d in factors) / max(1, most)


def _length(file: BinaryIO) -> int:
    try:
        return fstat(file.fileno()).st_size
    except OSError:  # bytes in memory
        at = file.tell()
        length = file.seek(0, 2)
        file.seek(at)
        return length

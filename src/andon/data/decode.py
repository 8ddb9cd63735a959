"""Safe decoding of images and masks.

Every file is either read right or refused in one line that names it. What "right" means here:

======================  ================================================================================================
grey, 1 bit, palette    expanded to RGB
16 bit (PNG, TIFF)      scaled over the full range, 65535 → 255, rounded; never stretched to the values that occur, so
                        that the same part looks the same in every image (12-bit TIFF: 4095 → 255)
transparency            dropped: the colour is taken as stored (a camera has no alpha; nothing is composited)
CMYK, YCbCr             converted to RGB without colour profiles; other colour profiles are ignored as well
EXIF orientation        applied; in a PNG only where the tag precedes the pixels, as every camera writes it
animations, many pages  refused: which of them is the part? (of an MPO, a JPEG with more behind it, the JPEG is read)
float, 32-bit integer   refused: what is white is not known
truncated, damaged      refused; a flipped bit that leaves a JPEG decodable cannot be noticed
more than `MAX_PIXELS`  refused from the header, before any pixel is decoded; so is a side over `MAX_SIDE`
======================  ================================================================================================

PNG, JPEG, BMP, TIFF, WebP and GIF are read, by their content whatever the suffix says; nothing else reaches a decoder.
All functions may be called from many threads.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from andon.core import AndonError, DataError, ImageArray

__all__ = ["MAX_FILE_BYTES", "MAX_PIXELS", "MAX_SIDE", "decode_image", "read_image", "read_mask", "read_size"]

MAX_PIXELS = 2**27
"""Most pixels of an image (134 million: 400 MB as RGB)."""
MAX_SIDE = 2**16 - 1
"""Longest side of an image, pixels."""
MAX_FILE_BYTES = 2**30
"""Largest file of an image, bytes."""

# The plugins are called directly, not through Image.open: only these decoders can be reached, and Pillow's own (global,
# warning) limit on the size does not come before the one here.
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str, type[ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImagePlugin.PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), "JPEG", JpegImagePlugin.JpegImageFile),
    (re.compile(rb"BM"), "BMP", BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF", TiffImagePlugin.TiffImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP", WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), "GIF", GifImagePlugin.GifImageFile),
)
_KINDS = ", ".join(kind for _, kind, _ in _SIGNATURES)
# Modes that Pillow converts to RGB without a guess.
_COLOUR_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
# TIFF tags (TIFF 6.0, section 8 and 19); the orientation is EXIF's too.
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _PLANAR = 256, 257, 258, 262, 274, 284
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
_ASSOCIATED_ALPHA = 1
# What turns the pixels of an image with EXIF orientation 2..8 upright.
_UPRIGHT: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
_Tags = Mapping[int, Any]


def read_image(path: str | PathLike[str]) -> ImageArray:
    """The image in a file.

    Returns:
        RGB uint8 ``[H, W, 3]``, writable, of the caller's own.

    Raises:
        DataError: the file is missing, cannot be read, is no image or is refused; the message names it.
    """
    with _opened(path) as (file, name):
        return _decode(file, name)


def decode_image(data: bytes, name: str = "image") -> ImageArray:
    """The image in ``data``, the bytes of a file (an upload), as ``read_image``; messages call it ``name``."""
    if not data:
        raise DataError(f"{name}: the file is empty")
    return _decode(io.BytesIO(data), name)


def read_size(path: str | PathLike[str]) -> tuple[int, int]:
    """(height, width) of the image in a file, from its header: no pixel is decoded.

    It is the size that ``read_image`` gives, orientation applied. Raises DataError as ``read_image`` does for what the
    header can show.
    """
    with _opened(path) as (file, name), _guarded(name):
        image = _header(file, name)
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_mask(path: str | PathLike[str]) -> npt.NDArray[np.uint8]:
    """The values of a ground-truth mask: uint8 ``[H, W]``, 0 = no defect.

    Grey, palette and 1-bit masks (white = 255) are taken as they look; alpha is dropped; of a colour mask a pixel's
    value is its one positive value over red, green and blue. 16-bit masks may hold 0..255, or 0 and
    65535 (read as 255). A JPEG cannot hold exact values: its masks are black and white, divided at 128.

    Raises:
        DataError: as ``read_image``, and where one pixel has two different positive values.
    """
    with _opened(path) as (file, name), _guarded(name):
        image = _header(file, name)
        values, _ = _load(image, file, name)
        lossy = isinstance(image, JpegImagePlugin.JpegImageFile)
        if values.ndim == 3:
            # By planes: a reduction over an axis of three is many times slower.
            red, green, blue = (np.ascontiguousarray(values[:, :, k]) for k in range(3))
            highest_of = np.maximum(np.maximum(red, green), blue)
            if not lossy and any(np.any((plane != 0) & (plane != highest_of)) for plane in (red, green, blue)):
                raise DataError(f"{name}: a pixel of this mask has two different positive values; it may have one")
            values = highest_of
        if lossy:
            values = np.where(values >= 128, 255, 0)
        elif values.dtype != np.uint8:
            highest = int(values.max())
            if highest > 255 and not np.all((values == 0) | (values == 65535)):
                raise DataError(f"{name}: a 16-bit mask may hold 0..255, or 0 and 65535; this one reaches {highest}")
            values = np.minimum(values, 255)
        return values.astype(np.uint8, copy=False)
    raise AssertionError("unreachable")


# --- the way from a file to pixels ------------------------------------------------------------------------------------


@contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    """An open regular file and its name; every failure of the file system as DataError."""
    name = fspath(path)
    try:
        # Looked at before it is opened: opening a pipe would wait for a writer.
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{name}: a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{name}: not a regular file")
        if status.st_size == 0:
            raise DataError(f"{name}: the file is empty")
        if status.st_size > MAX_FILE_BYTES:
            raise DataError(f"{name}: {status.st_size:,} bytes are too many for an image (limit {MAX_FILE_BYTES:,})")
        file = Path(path).open("rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read ({_reason(error)})") from error
    with file:
        yield file, name


@contextmanager
def _guarded(name: str) -> Iterator[None]:
    """Decoders raise anything from KeyError to struct.error on damaged files, and warn; none of it leaves here."""
    try:
        with _quiet():
            yield
    except AndonError:
        raise
    except MemoryError as error:
        raise DataError(f"{name}: not enough memory to decode this image") from error
    except Exception as error:
        raise DataError(f"{name}: damaged or truncated image ({_reason(error)})") from error


def _decode(file: BinaryIO, name: str) -> ImageArray:
    with _guarded(name):
        image = _header(file, name)
        values, white = _load(image, file, name)
        if white != 255:
            values = _to_eight_bits(values, white)
        return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    raise AssertionError("unreachable")


def _header(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """The image with its header read and found to be within the limits."""
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    plugin = next((plugin for signature, _, plugin in _SIGNATURES if signature.match(start)), None)
    if plugin is None:
        raise DataError(f"{name}: not an image of a known kind ({_KINDS})")
    image = plugin(file)
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: {width}×{height} pixels are too many (limits: {MAX_SIDE:,} a side, {MAX_PIXELS:,} in all)"
        )
    return image


def _load(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> tuple[npt.NDArray[Any], int]:
    """The pixels of an image whose header is read, and the value of white: 255 for uint8, more for uint16.

    ``[H, W]`` or ``[H, W, 3]``, values as stored, turned upright.
    """
    if getattr(image, "is_animated", False):
        raise DataError(f"{name}: an animation or a file of several pages; save the one image that is meant")
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    tiff: _Tags = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    _check_mode(image, tiff, name)
    orientation = _orientation(image)
    if ImageFile.LOAD_TRUNCATED_IMAGES:  # some program's leftover: it would fill up what is missing with grey
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    values: npt.NDArray[Any]
    white = 255
    if ";16" in _raw_mode(image) and not image.mode.startswith("I"):
        white = 65535
        values = _load_deep_colour(image, file, name)
    else:
        image.load()
        if image.mode.startswith("I"):
            # 12 bits, packed, is the one depth that Pillow does not widen.
            white = 4095 if max(_bits(tiff)) == 12 else 65535
            values = np.asarray(image).astype(np.uint16)
            if tiff.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow minds it for 8 bits only
                values = white - values
        elif image.mode in ("1", "L", "LA"):
            values = np.array(image.convert("L"))
        else:
            # By way of RGBA where the colours are stored multiplied by alpha.
            values = np.array((image.convert("RGBA") if image.mode == "RGBa" else image).convert("RGB"))
    if orientation > 1 and not is_tiff:  # Pillow turns a TIFF by itself
        values = np.ascontiguousarray(_UPRIGHT[orientation](values))
    return values, white


def _check_mode(image: ImageFile.ImageFile, tiff: _Tags, name: str) -> None:
    """Refuses pixels whose meaning would have to be guessed."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG") or _sample_format(tiff) > 1:
        raise DataError(
            f"{name}: what is white is unknown for floating-point, signed and 32-bit pixels; save 8 or 16 bits unsigned"
        )
    if image.mode not in _COLOUR_MODES and not image.mode.startswith("I"):
        raise DataError(f"{name}: the colour mode {image.mode} is not read; save it as RGB or grey")
    if max(_bits(tiff)) > 8 and tiff.get(_PLANAR, 1) != 1:
        raise DataError(f"{name}: 16-bit colour in separate planes is not read; save it interleaved, or as PNG")


def _load_deep_colour(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> npt.NDArray[np.uint16]:
    """16-bit colour, ``[H, W, 3]``, upright for a TIFF as Pillow's are.

    Pillow's colour images have 8 bits a channel, so OpenCV decodes. Pillow goes first: it tells a damaged file from a
    whole one, and what it finds must be what OpenCV finds, to the bits that it has.
    """
    tiff = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.mode not in ("LA", "RGB", "RGBA", "RGBX") or _ASSOCIATED_ALPHA in _numbers(tiff.get(_EXTRA_SAMPLES, ())):
        raise DataError(f"{name}: this kind of 16-bit colour is not read; save it as a 16-bit PNG, or with 8 bits")
    file.seek(0)
    data = file.read()
    # The limits hold for what Pillow read in the header; a crafted one could tell OpenCV another size.
    if sorted(_stored_size(data)) != sorted(image.size):
        raise DataError(f"{name}: damaged image (its header names two sizes)")
    image.load()
    rough = np.asarray(image.convert("RGB"))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape[:2] != rough.shape[:2] or decoded.ndim != 3:
        raise DataError(f"{name}: damaged image, or of a kind that is not read; save it as a 16-bit PNG")
    values: npt.NDArray[np.uint16] = np.ascontiguousarray(decoded[..., 2::-1], np.uint16)  # from BGR(A)
    for start in range(0, len(values), 256):
        rows = slice(start, start + 256)
        if np.abs((values[rows] >> 8).astype(np.int16) - rough[rows]).max() > 1:
            raise DataError(f"{name}: two decoders read different pixels in this image; save it as a 16-bit PNG")
    return values


def _stored_size(data: bytes) -> tuple[int, ...]:
    """(width, height) in the header of a PNG or TIFF, from the places where every decoder must look.

    Empty where a TIFF names one of them twice, or in an unusual type: decoders differ in what they make of it.
    """
    if data.startswith(b"\x89PNG"):
        return struct.unpack_from(">II", data, 16) if data[12:16] == b"IHDR" else ()
    order = "<" if data.startswith(b"II") else ">"
    if 43 in data[2:4]:  # BigTIFF
        head, count, entry = f"{order}8xQ", f"{order}Q", f"{order}HHQ8s"
    else:
        head, count, entry = f"{order}4xI", f"{order}H", f"{order}HHI4s"
    (at,) = struct.unpack_from(head, data)
    (entries,) = struct.unpack_from(count, data, at)
    at += struct.calcsize(count)
    found: list[tuple[int, int]] = []
    for k in range(entries):
        tag, kind, length, value = struct.unpack_from(entry, data, at + k * struct.calcsize(entry))
        if tag in (_WIDTH, _HEIGHT):
            if length != 1 or kind not in (3, 4):
                return ()
            found.append((tag, struct.unpack_from(order + {3: "H", 4: "I"}[kind], value)[0]))
    return tuple(size for _, size in sorted(found)) if [tag for tag, _ in sorted(found)] == [_WIDTH, _HEIGHT] else ()


def _to_eight_bits(values: npt.NDArray[np.uint16], white: int) -> npt.NDArray[np.uint8]:
    """0..white to 0..255, rounded to nearest, by a table."""
    table = (np.arange(white + 1, dtype=np.uint32) * 255 + white // 2) // white
    return table.astype(np.uint8)[values]


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the pixels lie in the file, in Pillow's words; "" where the plugin does not say."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _bits(tiff: _Tags) -> tuple[int, ...]:
    return _numbers(tiff.get(_BITS_PER_SAMPLE, 8)) or (8,)


def _numbers(value: Any) -> tuple[int, ...]:
    """A tag's values: Pillow gives a single one without a tuple."""
    return value if isinstance(value, tuple) else (value,)


def _sample_format(tiff: _Tags) -> int:
    """TIFF: 1 unsigned, 2 signed, 3 floating point; 4, "undefined", counts as unsigned (TIFF 6.0, section 19)."""
    formats = tiff.get(_SAMPLE_FORMAT, (1,))
    highest = max(formats, default=1) if isinstance(formats, tuple) else int(formats)
    return 1 if highest == 4 else highest


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation, 1..8, that is still to be applied; 1 where there is none or it makes no sense.

    Pillow turns TIFF images by itself and reports their upright size.
    """
    data = image.info.get("exif")
    if isinstance(image, TiffImagePlugin.TiffImageFile) or not isinstance(data, bytes):
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        value = exif.get(_ORIENTATION, 1)
    except Exception:
        # The image does not depend on its notes: damaged ones say nothing of how the camera was held.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# --- silence ----------------------------------------------------------------------------------------------------------

_quiet_lock = threading.Lock()
_quiet_users = 0
_QUIET_FILTER = ("ignore", None, Warning, re.compile(r"PIL\b|andon\.data\.decode\b"), 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from Pillow while any thread decodes.

    ``warnings.catch_warnings`` is not for threads: two that overlap can leave the filters of one behind for good.
    """
    global _quiet_users
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            filters.insert(0, _QUIET_FILTER)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0 and _QUIET_FILTER in warnings.filters:
                warnings.filters.remove(_QUIET_FILTER)  # type: ignore[attr-defined]


def _reason(error: BaseException) -> str:
    """An exception in a few words of one line."""
    text = getattr(error, "strerror", None) or str(error)
    line = " ".join(str(text).split())
    return line[:200] or type(error).__name__

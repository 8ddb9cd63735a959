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

PNG, JPEG, BMP, TIFF, WebP, GIF, PNM (PBM, PGM, PPM) and JPEG 2000 are read, by their content
whatever the suffix says; nothing else reaches a decoder.
All functions may be called from many threads.
"""

from __future__ import annotations

import io
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath, fstat
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from andon._tools.files import open_regular
from andon._tools.parallel import ByteBudget
from andon.core import AndonError, DataError, ImageArray
from andon.data._cost import decoding_bytes
from andon.data._deep_colour import come_in_pieces, deep_rows, tiff_rows
from andon.data._jpeg2000 import check_codestream, wavelet_levels
from andon.data._pixels import (
    has_pixels,
    joined,
    let_go,
    load_colour,
    load_plane,
    load_webp,
    narrowed,
    resized,
    rows_of,
    to_eight_bits,
)
from andon.data._turning import UPRIGHT, turned
from andon.data.mask import is_lossy, mask_values, opacity, palette_indices

__all__ = [
    "DECODING_BYTES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "REDUCED_ABOVE",
    "decode_image",
    "read_image",
    "read_mask",
    "read_resized",
    "read_size",
]

MAX_PIXELS = 2**27
"""Most pixels of an image (134 million: 400 MB as RGB)."""
MAX_SIDE = 2**16 - 1
"""Longest side of an image, pixels."""
MAX_FILE_BYTES = 2**30
"""Largest file of an image, bytes."""
REDUCED_ABOVE = 2**26
"""A larger image (67 million pixels) is turned upright after it is resized."""
REDUCED_BYTES = 2**28
"""A JPEG, or JPEG 2000, that takes more memory is reduced while it is decoded, where a small size of it is wanted: of
67 million pixels, progressive of 30 to 40 million, JPEG 2000 of 9 million."""
DECODING_BYTES = 2**30
"""Memory that all threads together take for decoding, bytes; an image that needs more is decoded while no other is."""
_MOST_PIXELS_OF = {"JPEG2000": 2**25}
"""Kinds whose decoder needs far more memory than the pixels: refused above this."""
_budget = ByteBudget(DECODING_BYTES)

# The plugins are called directly, not through Image.open: only these decoders can be reached, and Pillow's own (global,
# warning) limit on the size does not come before the one here.
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str, type[ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImagePlugin.PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), "JPEG", JpegImagePlugin.JpegImageFile),
    (re.compile(rb"BM"), "BMP", BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF", TiffImagePlugin.TiffImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP", WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), "GIF", GifImagePlugin.GifImageFile),
    (re.compile(rb"P[1-6]\s"), "PNM", PpmImagePlugin.PpmImageFile),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), "JPEG 2000", Jpeg2KImagePlugin.Jpeg2KImageFile),
)
_KINDS = ", ".join(kind for _, kind, _ in _SIGNATURES)
# Modes that Pillow converts to RGB without a guess.
_COLOUR_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
# TIFF tags (TIFF 6.0, section 8 and 19); the orientation is EXIF's too.
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _PLANAR = 256, 257, 258, 262, 274, 284
_SAMPLE_FORMAT, _COMPRESSION = 339, 259
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


def read_resized(path: str | PathLike[str], size: tuple[int, int]) -> ImageArray:
    """The image in a file, resized to (height, width): antialiased bilinear, as ``Transform`` does it.

    It is ``read_image`` and Pillow's ``resize`` bit for bit as long as decoding takes no more than 268 MB
    (``REDUCED_BYTES``: 67 million pixels of most kinds). Where it would take more, an image is turned upright after it
    is resized, and a JPEG or JPEG 2000 is decoded at a half, quarter or less of its size, still at least twice the size
    wanted: its memory is then that of the smaller image, its values differ by rounding
    (JPEG 2000's, whose halves are of another filter, by a little more).

    Returns:
        RGB uint8 ``[h, w, 3]``, of the caller's own.

    Raises:
        DataError: as ``read_image``.
    """
    with _opened(path) as (file, name), _guarded(name):
        image = _header(file, name)
        orientation = _orientation(image)
        stored = image.size[0] * image.size[1]
        large = stored > REDUCED_ABOVE
        cost = _cost(image, file)
        if cost > REDUCED_BYTES:
            cost = _reduce(image, file, size[::-1] if orientation >= 5 else size, cost)
        with _budget.held(cost):
            if not large or orientation == 1:
                values = _load(image, file, name, for_image=True)[0]
                return _as_rgb(resized(values, size))
            image.info.pop("exif")
            values = _load(image, file, name, for_image=True)[0]
            values = resized(values, size[::-1] if orientation >= 5 else size)
            return _as_rgb(turned(values, orientation))
    raise AssertionError("unreachable")


def decode_image(data: bytes, name: str = "image", *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """The image in ``data``, the bytes of a file (an upload), as ``read_image``; messages call it ``name``."""
    if not data:
        raise DataError(f"{name}: the file is empty")
    return _decode(io.BytesIO(data), name, max_pixels)


def read_size(path: str | PathLike[str]) -> tuple[int, int]:
    """(height, width) of the image in a file, from its header: no pixel is decoded.

    It is the size that ``read_image`` gives, orientation applied. Raises DataError as ``read_image`` does for what the
    header can show.
    """
    with _opened(path) as (file, name), _guarded(name):
        image = _header(file, name)
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_mask(path: str | PathLike[str], *, any_value: bool = False) -> npt.NDArray[np.uint8]:
    """The values of a ground-truth mask: uint8 ``[H, W]``, 0 = no defect.

    Grey, palette and 1-bit masks (white = 255) are taken as they look; alpha is dropped where it says nothing new, and
    taken where only it says anything; of a colour mask a pixel's value is its one positive value over red, green and
    blue. 16-bit masks may hold 0..255, or 0 and 65535 (read as 255). A JPEG cannot hold exact values: its masks are
    black and white, divided at 128. ``andon.data.mask`` has all of it.

    Args:
        path: of the file.
        any_value: whether all positive values mean the same: colours and 16 bits are read then whatever they are.

    Raises:
        DataError: as ``read_image``, and where a mask can be read in several ways, or in none.
    """
    with _opened(path) as (file, name), _guarded(name):
        image = _header(file, name)
        orientation = 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else _orientation(image)
        with _budget.held(_cost(image, file, mask=True)):
            values, alpha = _load(image, file, name)
            indices = None
            if has_pixels(image) or _is_deep_colour(image):  # what is not, or not all, in memory of ours
                alpha, indices = opacity(image), palette_indices(image)
                let_go(image)
            if orientation > 1:
                alpha, indices = (None if plane is None else turned(plane, orientation) for plane in (alpha, indices))
            lossy = is_lossy(image, file)
            return mask_values(values, alpha, indices, lossy=lossy, any_value=any_value, name=name)
    raise AssertionError("unreachable")


# --- the way from a file to pixels ------------------------------------------------------------------------------------


@contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    """An open regular file and its name; every failure of the file system as DataError."""
    name = fspath(path)
    with open_regular(path, MAX_FILE_BYTES, what="an image") as file:
        if fstat(file.fileno()).st_size == 0:
            raise DataError(f"{name}: the file is empty")
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


def _decode(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> ImageArray:
    with _guarded(name):
        image = _header(file, name, max_pixels)
        with _budget.held(_cost(image, file)):
            return _as_rgb(_load(image, file, name, for_image=True)[0])
    raise AssertionError("unreachable")


def _as_rgb(values: npt.NDArray[np.uint8]) -> ImageArray:
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def _cost(image: ImageFile.ImageFile, file: BinaryIO, *, stored: int | None = None, mask: bool = False) -> int:
    return decoding_bytes(image, file, deep=_is_deep_colour(image), stored=stored, mask=mask)


def _reduce(image: ImageFile.ImageFile, file: BinaryIO, size: tuple[int, int], cost: int) -> int:
    """Has an image decoded at a part of its size where its kind can, at least twice ``size``; what it takes then."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft(image.mode, (2 * size[1], 2 * size[0]))
        return _cost(image, file, stored=width * height)
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        file.seek(0)
        levels = wavelet_levels(file.read())
        file.seek(0)
        power = 0
        while power < levels and min(width // size[1], height // size[0]) >> (power + 1) >= 2:
            power += 1
        image.reduce = power
        return (cost >> 2 * power) + 2 * width * height
    return cost


def _header(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """The image with its header read and found to be within the limits."""
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    plugin = next((plugin for signature, _, plugin in _SIGNATURES if signature.match(start)), None)
    if plugin is None:
        raise DataError(f"{name}: not an image of a known kind ({_KINDS})")
    image = plugin(file)
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise DataError(
            f"{name}: {width}×{height} pixels are too many (limits: {MAX_SIDE:,} a side, {max_pixels:,} in all)"
        )
    most = _MOST_PIXELS_OF.get(image.format or "", MAX_PIXELS)
    if width * height > most:
        raise DataError(
            f"{name}: {width}×{height} pixels are too many for {image.format} (limit {most:,}); save it as another kind"
        )
    return image


def _load(
    image: ImageFile.ImageFile, file: BinaryIO, name: str, *, for_image: bool = False
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """The pixels of an image whose header is read.

    Args:
        for_image: scale 16 bits to 8, and leave nothing in ``image``, so that its memory is the result's.

    Returns:
        ``[H, W]`` or ``[H, W, 3]``, turned upright; values as stored, or uint8 ``for_image``.
        The opacity ``[H, W]``, as stored, where it was decoded with them; otherwise it is still in ``image``.
    """
    if getattr(image, "is_animated", False):
        raise DataError(f"{name}: an animation or a file of several pages; save the one image that is meant")
    tiff: _Tags = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    in_pieces = (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and come_in_pieces(image)
        and (for_image or image.mode not in ("RGBA", "RGBX"))
    )
    _check_mode(image, tiff, name)
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        file.seek(0)
        check_codestream(file.read(), image.size, name)
        file.seek(0)
    orientation = _orientation(image)
    if ImageFile.LOAD_TRUNCATED_IMAGES:  # some program's leftover: it would fill up what is missing with grey
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    if in_pieces or (_is_deep_colour(image) and tiff):  # Pillow, which turns a TIFF by itself, never sees all of it
        orientation = int(tiff.get(_ORIENTATION, 1))
    values, alpha = _stored(image, file, name, in_pieces=in_pieces, for_image=for_image)
    if for_image or in_pieces:
        let_go(image)
    if orientation in UPRIGHT:
        values = turned(values, orientation)
    return values, alpha


def _stored(
    image: ImageFile.ImageFile, file: BinaryIO, name: str, *, in_pieces: bool, for_image: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """``_load`` without what comes before and after."""
    if _is_deep_colour(image):
        scale = (lambda rows: to_eight_bits(rows, 65535)) if for_image else (lambda rows: rows)
        return joined(map(scale, deep_rows(image, file, name)), max(image.size)), None
    if in_pieces and isinstance(image, TiffImagePlugin.TiffImageFile):
        return joined(tiff_rows(image, file, name), max(image.size)), None
    if image.mode.startswith("I"):
        return _load_deep_grey(image, for_image=for_image), None
    if isinstance(image, WebPImagePlugin.WebPImageFile) and for_image:
        return load_webp(image, file, name), None
    # A mask's reader asks for what is transparent; of a palette's or a colour's Pillow makes it.
    if _decodes_anywhere(image) and (for_image or "transparency" not in image.info):
        if image.mode == "L":
            return load_plane(image), None
        return load_colour(image, opacity=not for_image and "A" in image.getbands())
    image.load()
    if image.mode in ("1", "L", "LA"):
        return joined((np.asarray(rows.convert("L")) for rows in rows_of(image)), image.size[1]), None
    # By way of RGBA where the colours are stored multiplied by alpha.
    pieces = ((rows.convert("RGBA") if rows.mode == "RGBa" else rows).convert("RGB") for rows in rows_of(image))
    return joined(map(np.asarray, pieces), image.size[1]), None


def _load_deep_grey(image: ImageFile.ImageFile, *, for_image: bool) -> npt.NDArray[Any]:
    """Grey of more than 8 bits, ``[H, W]``."""
    tiff: _Tags = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    # 12 bits, packed, is the one depth that Pillow does not widen.
    white = 4095 if max(_bits(tiff)) == 12 else 65535
    inverted = tiff.get(_PHOTOMETRIC) == 0  # white is zero: Pillow minds it for 8 bits only

    def read(rows: Any) -> npt.NDArray[Any]:
        values = np.asarray(rows).astype(np.uint16)
        if inverted:
            values = white - values
        return to_eight_bits(values, white) if for_image else values

    if _decodes_anywhere(image) and sys.byteorder == "little" and not (inverted and not for_image):
        values = load_plane(image)
        return narrowed(values, read) if for_image else values
    image.load()
    return joined(map(read, rows_of(image)), image.size[1])


def _decodes_anywhere(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow decodes this image into any memory of its pixels' size: some decoders look at what they are
    given."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        together = image.tag_v2.get(_PLANAR, 1) == 1 or image.tag_v2.get(_COMPRESSION, 1) == 1
        plain = image.tag_v2.get(_ORIENTATION, 1) == 1 and together
    else:
        plain = image.format in ("PNG", "JPEG", "MPO", "BMP", "DIB", "PPM")
    return plain and image.mode in ("RGB", "RGBA", "RGBX", "CMYK", "LA", "L", "I;16")


def _is_deep_colour(image: ImageFile.ImageFile) -> bool:
    return ";16" in _raw_mode(image) and not image.mode.startswith("I")


def _check_mode(image: ImageFile.ImageFile, tiff: _Tags, name: str) -> None:
    """Refuses pixels whose meaning would have to be guessed."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")) or _sample_format(tiff) > 1:
        raise DataError(
            f"{name}: what is white is unknown for floating-point, signed and 32-bit pixels; save 8 or 16 bits unsigned"
        )
    if image.mode not in _COLOUR_MODES and not image.mode.startswith("I"):
        raise DataError(f"{name}: the colour mode {image.mode} is not read; save it as RGB or grey")
    if max(_bits(tiff)) > 8 and tiff.get(_PLANAR, 1) != 1:
        raise DataError(f"{name}: 16-bit colour in separate planes is not read; save it interleaved, or as PNG")


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

"""Anomaly-map files: safe reading, and finding the map of each test image.

A map is one number a pixel, higher = more anomalous, in a file of one of these kinds:

- PNG, grey, 8 or 16 bit
- TIFF, one page, one channel: 8 or 16 bit unsigned, or 16, 32 or 64 bit floating point
- NPY, ``[H, W]``: uint8, uint16, float16, float32 or float64
"""

from __future__ import annotations

import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from andon._tools.files import folders_below, open_regular
from andon.core import AndonError, Category, DataError, Sample, listed

__all__ = ["MAP_SUFFIXES", "MAX_PIXELS", "MapFiles", "find_maps", "map_folder", "read_map", "sample_key"]

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
MAX_PIXELS = 2**27
"""Larger maps are refused before they are decoded."""
MAX_FILE_BYTES = 2**31
"""Largest file of a map, bytes: float64 of the most pixels, and as much again."""
_SURE_BYTES = 2**27

AnomalyMapArray = npt.NDArray[Any]
_DEFLATE = (8, 32946)
_MOST_DEFLATED = 1032
"""Times that zlib can make something smaller, at most."""
_TYPES = ("uint8", "uint16", "float16", "float32", "float64")


def read_map(path: Path) -> AnomalyMapArray:
    """An anomaly map as it is stored.

    Returns:
        ``[H, W]``, uint8, uint16, float32 or float64 (float16 becomes float32, which loses nothing). Floats may be −inf
        ("not seen", lowest); never NaN or +inf.

    Raises:
        AndonError: names the file and says what is wrong with it.
    """
    path = Path(path)
    readers = {".png": _read_png, ".tif": _read_tiff, ".tiff": _read_tiff, ".npy": _read_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise AndonError(f"{path}: not a kind of anomaly map; these are read: {', '.join(MAP_SUFFIXES)}")
    try:
        with open_regular(path, MAX_FILE_BYTES, what="an anomaly map") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise DataError(f"{path}: the file is empty")
            scores = reader(path, file)
    except AndonError:
        raise
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise AndonError(f"{path}: cannot be read as an anomaly map ({reason})") from error
    except Exception as error:
        # Decoders raise anything from KeyError to struct.error on damaged files; none of it is the caller's to know.
        text = (str(error).splitlines() or [""])[0][:200]
        raise AndonError(f"{path}: damaged, or not an anomaly map ({type(error).__name__}: {text})") from error
    if scores.dtype.kind == "f":
        if scores.dtype.itemsize == 2:
            scores = scores.astype(np.float32)
        scores = scores.astype(scores.dtype.newbyteorder("="), copy=False)
        highest = scores.max()
        if np.isnan(highest):
            raise AndonError(f"{path}: {np.count_nonzero(np.isnan(scores))} pixels are NaN")
        if highest == np.inf:
            raise AndonError(f"{path}: {np.count_nonzero(np.isposinf(scores))} pixels are infinite")
    return scores.astype(scores.dtype.newbyteorder("="), copy=False)


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise AndonError(f"{path}: a map has one number a pixel, [H, W]; this one has the shape {list(shape)}")
    if 0 in shape:
        raise AndonError(f"{path}: the map has no pixels ({shape[0]}×{shape[1]})")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise AndonError(f"{path}: {shape[0]}×{shape[1]} pixels are too many for an anomaly map")


def _check_type(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.newbyteorder("=").name not in _TYPES:
        raise AndonError(f"{path}: pixels are {dtype.name}; maps are {', '.join(_TYPES)}")


def _read_png(path: Path, file: BinaryIO) -> AnomalyMapArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes before decoding
        try:
            image = Image.open(file, formats=("PNG",))
        except UnidentifiedImageError:
            raise AndonError(f"{path}: not a PNG image") from None
        except Image.DecompressionBombError:
            raise AndonError(f"{path}: too many pixels for an anomaly map") from None
        with image:
            _check_shape(path, (image.height, image.width))
            if getattr(image, "n_frames", 1) != 1:
                raise AndonError(f"{path}: an animation is not an anomaly map")
            mode = image.mode
            if mode not in ("L", "I;16", "I;16B", "I"):
                raise AndonError(f"{path}: maps are grey images of 8 or 16 bit; this one has the colour mode {mode}")
            scores = np.asarray(image)
    # "I" is how older Pillow opens 16-bit grey.
    return scores if mode == "L" else scores.astype(np.uint16)


def _read_tiff(path: Path, file: BinaryIO) -> AnomalyMapArray:
    try:
        tiff = tifffile.TiffFile(file)
    except tifffile.TiffFileError as error:
        raise AndonError(f"{path}: not a TIFF image ({error})") from error
    with tiff:
        if len(tiff.pages) != 1:
            raise AndonError(f"{path}: {len(tiff.pages)} pages; a map has one")
        page = tiff.pages.first
        _check_shape(path, tuple(page.shape))
        if page.dtype is None:
            raise AndonError(f"{path}: unknown type of pixels; maps are {', '.join(_TYPES)}")
        _check_type(path, page.dtype)
        _check_pieces(path, file, page)
        try:
            return np.asarray(page.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise AndonError(f"{path}: this compression of TIFF is not read; save it uncompressed or as NPY") from error


def _check_pieces(path: Path, file: BinaryIO, page: Any) -> None:
    """AndonError where the pieces of a TIFF unpack to more than their pixels; nothing of it is kept."""
    if page.compression == 1:
        return
    if page.compression not in _DEFLATE:
        raise DataError(f"{path}: this compression of TIFF is not read; save it uncompressed, with deflate, or as NPY")
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    if height * width > MAX_PIXELS:
        height = page.imagelength
    expected = height * width * page.dtype.itemsize
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count * _MOST_DEFLATED <= _SURE_BYTES:
            continue
        file.seek(start)
        if _unpacked_size(file.read(count), expected) > expected:
            raise DataError(f"{path}: damaged, or made to exhaust the memory (a piece unpacks to more than its pixels)")


def _unpacked_size(data: bytes, most: int) -> int:
    """Bytes that zlib makes of data; counted, not kept, and no further than just above ``most``."""
    stream, size = zlib.decompressobj(), 0
    while data and not stream.eof and size <= most:
        size += len(stream.decompress(data, 2**20))
        data = stream.unconsumed_tail
    return size


def _read_npy(path: Path, file: BinaryIO) -> AnomalyMapArray:
    # Shape and type are checked before anything is loaded. Pickles are refused.
    if file.read(6) != b"\x93NUMPY":
        raise AndonError(f"{path}: not a NumPy array file")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise DataError(f"{path}: version {version[0]}.{version[1]} of NPY is not read; save it with numpy.save")
    shape, by_columns, dtype = headers[version](file)
    _check_shape(path, shape)
    _check_type(path, dtype)
    count = shape[0] * shape[1]
    values = np.fromfile(file, dtype, count)
    if len(values) != count:
        raise DataError(f"{path}: truncated ({len(values):,} of {count:,} pixels)")
    return values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)


def sample_key(sample: Sample) -> str:
    """``<defect type>/<name>`` of a test sample: where its map lies, without suffix."""
    return sample.id.removeprefix("test/")


@dataclass(frozen=True)
class MapFiles:
    """The map of each test image of a category.

    Attributes:
        folder: where they lie.
        paths: of ``samples``, in order.
        samples: the test samples.
        surplus: maps that belong to no test image, relative to the folder, sorted.
    """

    folder: Path
    samples: tuple[Sample, ...]
    paths: tuple[Path, ...]
    surplus: tuple[str, ...]


def map_folder(root: Path, category: Category, *, single: bool) -> Path | None:
    """The folder that holds ``<defect type>/<name>.<suffix>`` of a category's test images.

    Looks for ``<root>/<category>/test``, ``<root>/<category>`` and, where ``single``, ``<root>/test`` and ``<root>``
    itself. None where none of them holds the folder of a defect type of the category (or "good").

    Args:
        single: whether the root may be this one category's.
    """
    names = {sample_key(s).split("/")[0] for s in category.test}
    candidates = [root / category.name / "test", root / category.name]
    if single:
        candidates += [root / "test", root]
    return next((c for c in candidates if any((c / name).is_dir() for name in names)), None)


def find_maps(folder: Path, category: Category) -> MapFiles:
    """Matches map files with the test images of a category: ``<folder>/<defect type>/<name>.<suffix>``.

    Raises:
        AndonError: maps are missing (all counted, the first few named), or there are two of one image.
    """
    found: dict[str, Path] = {}
    # Linked folders too, as data may lie in: rglob does not follow links.
    paths = (below / name for below, names in folders_below(folder) for name in names)
    for path in paths:
        if path.suffix.lower() not in MAP_SUFFIXES:
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise AndonError(f"{path}: a second map of the same image as {found[key].name}; keep one of them")
        found[key] = path
    samples = category.test
    missing = [sample_key(s) for s in samples if sample_key(s) not in found]
    if missing:
        raise AndonError(
            f"{folder}: {len(missing)} of {len(samples)} test images of {category.name} have no anomaly map "
            f"(<defect type>/<name>.png, .tif, .tiff or .npy): {listed(missing)}"
        )
    wanted = {sample_key(s) for s in samples}
    return MapFiles(
        folder=folder,
        samples=samples,
        paths=tuple(found[sample_key(s)] for s in samples),
        surplus=tuple(sorted(str(found[key].relative_to(folder)) for key in found if key not in wanted)),
    )

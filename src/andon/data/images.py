"""Images as methods take them: a sequence of samples, paths or arrays with a cache beneath.

Decoded and resized images are cached once a geometry, and whatever is computed per image from them (features of a
frozen backbone) can be cached beside them, so that eight seeds cost far less than eight runs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from andon._tools.parallel import shared_pool
from andon.core import Category, DataError, Dataset, ImageArray, Sample
from andon.data.cache import ArrayCache
from andon.data.decode import MAX_PIXELS, MAX_SIDE, read_image, read_resized
from andon.data.derived import DerivedReader, source_numbers, variant_of
from andon.data.files import FileReader
from andon.data.fingerprint import file_fingerprint
from andon.data.transform import Transform

__all__ = ["ImageLike", "ImageMemory", "Images", "as_images"]

ImageLike = Sample | str | PathLike[str] | ImageArray | Image.Image

_PIL_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
"""Modes that Pillow converts to RGB without a guess."""
_MemoryKey = tuple[str, int, int, int, str]


class ImageMemory:
    """Resized images in memory, at most ``max_bytes``; the ones not used for longest make room. For any thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._images: OrderedDict[_MemoryKey, ImageArray] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, key: _MemoryKey) -> ImageArray | None:
        with self._mutex:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
            return image

    def put(self, key: _MemoryKey, image: ImageArray) -> None:
        with self._mutex:
            if image.nbytes > self.max_bytes or key in self._images:
                return
            self._images[key] = image
            self.n_bytes += image.nbytes
            while self.n_bytes > self.max_bytes:
                self.n_bytes -= self._images.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._mutex:
            self._images.clear()
            self.n_bytes = 0


# One for the process, because it is the process's memory that is to be bounded: 1,300 images of 256×256.
_memory = ImageMemory(256 * 2**20)


class Images:
    """A sequence of images. Picklable; may be read from several threads.

    A resized image comes from memory (at most 256 MiB a process, files only), else from the cache on disk, else it
    is decoded. Both know a file's content, not only its name: a changed file is read anew.

    Args:
        items: samples, paths of images, or RGB uint8 ``[H, W, 3]`` arrays (not to be changed afterwards).
        cache: where resized images and features are kept; None keeps nothing on disk.
    """

    def __init__(self, items: Iterable[ImageLike], cache: ArrayCache | None = None) -> None:
        self.items: tuple[ImageLike, ...] = tuple(items)
        self.cache = cache
        self._fingerprints: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.items)

    def subset(self, indices: Sequence[int]) -> Images:
        """The images at ``indices``, with the same cache."""
        chosen = Images([self.items[i] for i in indices], self.cache)
        chosen._fingerprints = {
            new: self._fingerprints[old] for new, old in enumerate(indices) if old in self._fingerprints
        }
        return chosen

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """For each image the number of the one that it is a version of (``andon.data.augmented``), from 0 in order."""
        return source_numbers(self.items)

    @property
    def n_sources(self) -> int:
        """Images without counting versions of one twice: how long an epoch is."""
        return max(self.sources, default=-1) + 1

    def name(self, index: int) -> str:
        """What to call image ``index`` in a message."""
        path = self._path(index)
        return f"image {index}" if path is None else str(path)

    def image(self, index: int) -> ImageArray:
        """Image ``index`` at its own size, RGB uint8 ``[H, W, 3]``; DataError names it where it cannot be read."""
        item = self.items[index]
        if isinstance(item, Sample):
            return item.image()
        if isinstance(item, np.ndarray):
            return _checked_array(item, index)
        path = self._path(index)
        assert path is not None
        return read_image(path)

    def fingerprint(self, index: int) -> str:
        """Hash of the image's content (the file's bytes and what is made of them, or the array's), 32 hex digits.

        A file is read once a process for it, as long as it is unchanged; an array once.
        """
        path = self._path(index)
        if path is not None:
            content, variant = file_fingerprint(path), variant_of(self.items[index])
            return content if not variant else _digest(f"{content} {variant}")
        known = self._fingerprints.get(index)
        if known is None:
            image = self.image(index)
            digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
            digest.update(np.ascontiguousarray(image).data)
            known = self._fingerprints[index] = digest.hexdigest()
        return known

    def resized(self, index: int, transform: Transform) -> ImageArray:
        """Image ``index``, decoded, resized and cropped: uint8 ``[h, w, 3]``, read-only (it may be shared)."""
        key = self._memory_key(index, transform)
        image = None if key is None else _memory.get(key)
        if image is None:
            image = self._resized_from_disk(index, transform)
            image.flags.writeable = False
            if key is not None:
                _memory.put(key, image)
        return image

    def batches(self, transform: Transform, batch_size: int) -> Iterator[tuple[range, torch.Tensor]]:
        """``(indices, float32 [B, 3, h, w])`` in order. One batch is decoded ahead, by threads, while one is used."""
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, not {batch_size}")
        starts = [range(i, min(i + batch_size, len(self))) for i in range(0, len(self), batch_size)]
        if len(self) <= 1:
            for indices in starts:
                yield indices, transform.normalise(np.stack([self.resized(i, transform) for i in indices]))
            return
        pool = shared_pool()

        def begin(indices: range) -> list[Future[ImageArray]]:
            return [pool.submit(self.resized, i, transform) for i in indices]

        ahead = begin(starts[0])
        try:
            for number, indices in enumerate(starts):
                images = [future.result() for future in ahead]
                ahead = begin(starts[number + 1]) if number + 1 < len(starts) else []
                yield indices, transform.normalise(np.stack(images))
        finally:
            for future in ahead:
                future.cancel()

    def _path(self, index: int) -> Path | None:
        """The file of image ``index``; None for an array."""
        item = self.items[index]
        if isinstance(item, Sample):
            return item.path
        if isinstance(item, np.ndarray):
            return None
        try:
            return Path(fspath(item))  # type: ignore[arg-type]  # a PIL image is an array by now
        except TypeError:
            raise DataError(
                f"image {index} must be a sample, a path or an RGB uint8 array, not {type(item).__name__}"
            ) from None

    def _memory_key(self, index: int, transform: Transform) -> _MemoryKey | None:
        path = self._path(index)
        if path is None:
            return None
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None  # reading it will say what is wrong
        what = transform.geometry_key + variant_of(self.items[index])
        return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, what

    def _resized_from_disk(self, index: int, transform: Transform) -> ImageArray:
        if self.cache is None:
            return self._decoded(index, transform).view()
        kind, fingerprint = f"images-{transform.geometry_key}", self.fingerprint(index)
        cached = self.cache.get(kind, fingerprint)
        if cached is not None and len(cached) == 1 and cached[0].shape == (*transform.output_size, 3):
            image: ImageArray = cached[0]
            return image
        image = self._decoded(index, transform)
        self.cache.put(kind, fingerprint, (image,))
        return image.view()

    def _decoded(self, index: int, transform: Transform) -> ImageArray:
        """Image ``index`` resized and cropped; no more is in memory than ``read_resized`` needs, if antialiased."""
        item, path = self.items[index], self._path(index)
        if isinstance(item, Sample) and isinstance(item.reader, DerivedReader):
            return item.reader.resized(item, transform)
        reads_itself = isinstance(item, Sample) and type(item.reader).image is not FileReader.image
        if path is None or reads_itself:
            return transform.resize(self.image(index))
        if not transform.antialias:
            return transform.resize(read_image(path))  # a file that is decoded smaller has been filtered already
        return transform.resize(read_resized(path, transform.size))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def as_images(images: Images | Iterable[ImageLike] | ImageLike) -> Images:
    """What a caller hands in, as ``Images``.

    Args:
        images: samples, paths, PIL images, RGB uint8 arrays ``[H, W, 3]``, or a single one of them; arrays may be
            stacked to ``[N, H, W, 3]``. A PIL image becomes RGB as a file does (``andon.data.decode``), but that of 16
            bits of colour Pillow keeps 8.

    Raises:
        DataError: it is something else, or an array or PIL image of a kind that is not read.
    """
    if isinstance(images, Images):
        return images
    if isinstance(images, Sample | str | PathLike | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim != 4 and images.dtype.kind not in "OU"
    ):
        return Images([_item(images, 0)])
    if isinstance(images, bytes | bytearray | Mapping | torch.Tensor) or not isinstance(images, Iterable):
        raise _not_images(images, "images")
    return Images(_item(item, index) for index, item in enumerate(images))


def _item(item: Any, index: int) -> ImageLike:
    """One image of a caller's; a PIL image as an array."""
    if isinstance(item, Image.Image):
        return _pixels(item, f"image {index}")
    if isinstance(item, np.ndarray):
        return _checked_array(item, index)
    if isinstance(item, Sample | str | PathLike):
        return item
    raise _not_images(item, f"image {index}")


def _not_images(value: Any, what: str) -> DataError:
    hint = ""
    if isinstance(value, Category | Dataset):
        hint = "; of a category take its samples: category.test"
    elif isinstance(value, torch.Tensor):
        hint = "; a tensor as the transform gives it goes to predict_batch"
    return DataError(
        f"{what} must be a sample, a path, a PIL image or an RGB uint8 array [H, W, 3]"
        f"{', or a list of them' if what == 'images' else ''}, not {type(value).__name__}{hint}"
    )


def _checked_array(image: ImageArray, index: int) -> ImageArray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(f"image {index} must be an RGB uint8 array [H, W, 3], got {image.dtype} {list(image.shape)}")
    return image


def _pixels(image: Image.Image, name: str) -> ImageArray:
    """A PIL image as RGB uint8 ``[H, W, 3]``, upright, with what ``read_image`` refuses refused."""
    width, height = image.size
    if 0 in image.size or max(image.size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(f"{name}: {width}×{height} pixels (limits: 1 to {MAX_SIDE:,} a side, {MAX_PIXELS:,} in all)")
    # Of an MPO, a JPEG with more behind it, the JPEG is meant.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise DataError(f"{name}: an animation or a file of several pages; copy() the one image that is meant")
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if not deep and image.mode not in _PIL_MODES:
        raise DataError(f"{name}: a PIL image of mode {image.mode} is not read; make it RGB or grey of 8 or 16 bits")
    try:
        image = ImageOps.exif_transpose(image)
        if deep:
            values = np.asarray(image).astype(np.uint32)
            grey = ((np.minimum(values, 65535) * 255 + 32767) // 65535).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode == "RGBa":
            image = image.convert("RGBA")
        elif image.mode == "LA":
            image = image.convert("L")
        return np.array(image.convert("RGB"))
    except Exception as error:  # a file that is not read before, and is damaged
        raise DataError(f"{name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})") from error

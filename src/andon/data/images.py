"""Images as methods take them: a sequence of samples, paths or arrays with a cache beneath.

Decoded and resized images are cached once a geometry, and whatever is computed per image from them (features of a
frozen backbone) can be cached beside them, so that eight seeds cost far less than eight runs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import torch

from andon._tools.parallel import shared_pool
from andon.core import DataError, ImageArray, Sample
from andon.data.cache import ArrayCache
from andon.data.decode import read_image
from andon.data.fingerprint import file_fingerprint
from andon.data.transform import Transform

__all__ = ["ImageLike", "ImageMemory", "Images", "as_images"]

ImageLike = Sample | str | PathLike[str] | ImageArray

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
            if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
                raise DataError(
                    f"image {index} must be an RGB uint8 array [H, W, 3], got {item.dtype} {list(item.shape)}"
                )
            return item
        path = self._path(index)
        assert path is not None
        return read_image(path)

    def fingerprint(self, index: int) -> str:
        """Hash of the image's content (the file's bytes, or the array's), 32 hexadecimal digits.

        A file is read once a process for it, as long as it is unchanged; an array once.
        """
        path = self._path(index)
        if path is not None:
            return file_fingerprint(path)
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
            return Path(fspath(item))
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
        return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, transform.geometry_key

    def _resized_from_disk(self, index: int, transform: Transform) -> ImageArray:
        if self.cache is None:
            return transform.resize(self.image(index)).view()
        kind, fingerprint = f"images-{transform.geometry_key}", self.fingerprint(index)
        cached = self.cache.get(kind, fingerprint)
        if cached is not None and len(cached) == 1 and cached[0].shape == (*transform.output_size, 3):
            image: ImageArray = cached[0]
            return image
        image = transform.resize(self.image(index))
        self.cache.put(kind, fingerprint, (image,))
        return image.view()


def as_images(images: Images | Iterable[ImageLike] | ImageLike) -> Images:
    """What a caller hands in, as ``Images``: samples, paths, arrays, or a single one of them."""
    if isinstance(images, Images):
        return images
    if isinstance(images, Sample | str | PathLike) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return Images([images])
    return Images(images)

"""Pictures as methods take them: a sequence of samples, paths or arrays with a cache beneath.

Decoded and resized pictures are cached once a geometry, and whatever is computed per picture from them (features of a
frozen backbone) can be cached beside them, so that eight seeds cost far less than eight runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from andon.core import AndonError, ImageArray, Sample
from andon.data.cache import ArrayCache
from andon.data.decode import read_image
from andon.data.transform import Transform

__all__ = ["ImageLike", "Images", "as_images"]

ImageLike = Sample | str | PathLike[str] | ImageArray


class Images:
    """A sequence of pictures.

    Args:
        items: samples, paths of pictures, or RGB uint8 ``[H, W, 3]`` arrays.
        cache: where resized pictures and features are kept; None keeps nothing.
    """

    def __init__(self, items: Iterable[ImageLike], cache: ArrayCache | None = None) -> None:
        self.items: tuple[ImageLike, ...] = tuple(items)
        self.cache = cache
        self._fingerprints: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.items)

    def subset(self, indices: Sequence[int]) -> Images:
        """The pictures at ``indices``, with the same cache."""
        return Images([self.items[i] for i in indices], self.cache)

    def name(self, index: int) -> str:
        """What to call picture ``index`` in a message."""
        item = self.items[index]
        if isinstance(item, Sample):
            return str(item.path)
        return f"picture {index}" if isinstance(item, np.ndarray) else str(item)

    def image(self, index: int) -> ImageArray:
        """Picture ``index`` at its own size, RGB uint8 ``[H, W, 3]``."""
        item = self.items[index]
        if isinstance(item, Sample):
            return item.image()
        if isinstance(item, np.ndarray):
            if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
                raise AndonError(
                    f"picture {index} must be an RGB uint8 array [H, W, 3], got {item.dtype} {list(item.shape)}"
                )
            return item
        return read_image(Path(item))

    def fingerprint(self, index: int) -> str:
        """Hash of the picture's content (the file's bytes, or the array's)."""
        known = self._fingerprints.get(index)
        if known is None:
            item = self.items[index]
            digest = hashlib.blake2b(digest_size=16)
            if isinstance(item, np.ndarray):
                digest.update(repr(item.shape).encode())
                digest.update(np.ascontiguousarray(item).tobytes())
            else:
                path = item.path if isinstance(item, Sample) else Path(item)
                try:
                    digest.update(path.read_bytes())
                except OSError as error:
                    raise AndonError(f"{path}: cannot be read ({error.strerror})") from error
            known = self._fingerprints[index] = digest.hexdigest()
        return known

    def resized(self, index: int, transform: Transform) -> ImageArray:
        """Picture ``index``, decoded, resized and cropped: uint8 ``[h, w, 3]``."""
        if self.cache is None:
            return transform.resize(self.image(index))
        kind = f"pictures-{transform.geometry_key}"
        cached = self.cache.get(kind, self.fingerprint(index))
        if cached is not None:
            return cached[0]
        image = transform.resize(self.image(index))
        self.cache.put(kind, self.fingerprint(index), (image,))
        return image

    def batches(self, transform: Transform, batch_size: int) -> Iterator[tuple[range, torch.Tensor]]:
        """``(indices, float32 [B, 3, h, w])`` in order."""
        for start in range(0, len(self), batch_size):
            indices = range(start, min(start + batch_size, len(self)))
            yield indices, transform.normalise(np.stack([self.resized(i, transform) for i in indices]))


def as_images(images: Images | Iterable[ImageLike]) -> Images:
    """What a caller hands in, as ``Images``."""
    return images if isinstance(images, Images) else Images(images)

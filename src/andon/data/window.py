"""Windows of images: an inspection area cut out of a scene, in images and masks alike (the study's sections 3.1, 6.2).

A *fixed* window lies at the same place of every image. A *template* window follows the part: what the first training
image shows around the window's middle is looked for in every other image by normalised cross-correlation (of grey
values, means taken out: ``cv2.TM_CCOEFF_NORMED``), and the window goes with it.

A small template is easily lost where a part is missing or wrong, and so much else is there to find: on the uncropped
images of the synthetic line one of 200×200 pixels jumps by hundreds of pixels, one of 600×600 does not. So the template
may be larger than the window.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from andon._tools.models import FrozenModel
from andon._tools.parallel import ordered_map
from andon.core import Category, Channel, DataError, GroundTruth, ImageArray, Sample, SampleReader, canonical_json
from andon.data.cache import ArrayCache
from andon.data.derived import DerivedReader
from andon.data.files import FileReader, check_mask_size
from andon.data.fingerprint import file_fingerprint
from andon.data.matching import Template, grey_of

__all__ = ["Window", "placed", "window_note", "windowed", "windowed_fingerprint"]

_MOST_KNOWN = 2**16


class Window(FrozenModel):
    """A window of fixed size.

    Attributes:
        size: (height, width), pixels of the images as they are on disk.
        place: "fixed", or "template" to follow the part.
        centre: (y, x) of its middle in pixels: of every image for a fixed one, of the first training image for a
            template; None for the image's middle.
        template: (height, width) of what is looked for, about the same middle, cut to what the first training image
            has; None for the window itself.
        search: how far a template may move from there, pixels in either direction; None for anywhere in the image.
    """

    size: tuple[int, int]
    place: Literal["fixed", "template"] = "fixed"
    centre: tuple[int, int] | None = None
    template: tuple[int, int] | None = None
    search: int | None = Field(default=None, ge=1)

    @field_validator("size", "template")
    @classmethod
    def _check(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and not all(8 <= side <= 8192 for side in size):
            raise ValueError(f"must be 8..8192 in both directions, not {size[0]}×{size[1]}")
        return size

    @model_validator(mode="after")
    def _fits(self) -> Window:
        if self.place == "fixed" and not (self.template is None and self.search is None):
            raise ValueError("template and search are for place: template")
        return self

    @property
    def key(self) -> str:
        """Hash of all of it."""
        return hashlib.blake2b(canonical_json([1, self.model_dump()]).encode(), digest_size=8).hexdigest()

    @property
    def title(self) -> str:
        """Width × height, as the study's Table 12 has it."""
        return f"{self.size[1]}×{self.size[0]}"

    def corner(self, size: tuple[int, int], name: object) -> tuple[int, int]:
        """(top, left) in an image of ``size`` (height, width), before a template is looked for.

        Raises:
            DataError: it does not fit; ``name`` says what in.
        """
        middle = self.centre or (size[0] // 2, size[1] // 2)
        top, left = middle[0] - self.size[0] // 2, middle[1] - self.size[1] // 2
        if min(top, left) < 0 or top + self.size[0] > size[0] or left + self.size[1] > size[1]:
            raise DataError(
                f"{name}: the window of {self.title} pixels with its middle at x {middle[1]}, y {middle[0]} does not "
                f"fit in the image of {size[1]}×{size[0]}; set size and centre"
            )
        return top, left


@dataclass(frozen=True)
class _WindowReader(DerivedReader):
    """Reads a window of each sample.

    Attributes:
        reference: the first training image, as it is, for a template.
    """

    inner: SampleReader
    window: Window
    reference: Sample | None

    def variant(self, sample: Sample) -> str:
        inner = self.inner.variant(sample) if isinstance(self.inner, DerivedReader) else ""
        seen = "" if self.reference is None else file_fingerprint(self.reference.path)
        return canonical_json(["window", 1, self.window.key, seen, inner])

    def image(self, sample: Sample) -> ImageArray:
        image = self.inner.image(sample)
        window: ImageArray = self._cut(image, self.corner(sample, image)).copy()
        return window

    def size(self, sample: Sample) -> tuple[int, int]:
        return self.window.size

    def ground_truth(self, sample: Sample) -> GroundTruth | None:
        """The channels that reach into the window; their saturation is that of the part that does."""
        if not sample.is_defective:
            return GroundTruth(self.window.size)
        if isinstance(self.inner, FileReader):
            if not sample.mask_paths:
                return None
            return GroundTruth(self.window.size, tuple(self._channels(self.inner, sample)))
        whole = self.inner.ground_truth(sample)
        if whole is None:
            return None
        corner, kept = self.corner(sample), []
        for channel in whole.channels:
            mask = self._cut(channel.mask, corner)
            if mask.any():
                kept.append(Channel(mask.copy(), channel.defect, min(channel.saturation, int(mask.sum()))))
        return GroundTruth(self.window.size, tuple(kept))

    def corner(self, sample: Sample, image: ImageArray | None = None) -> tuple[int, int]:
        """(top, left) of the window in a sample's image, which is read where it is needed."""
        if self.reference is None:
            return self.window.corner(image.shape[:2] if image is not None else self.inner.size(sample), sample.path)
        key = (self.window.key, file_fingerprint(self.reference.path), file_fingerprint(sample.path))
        known = _known.get(key)
        if known is None:
            known = self._found(sample, self.inner.image(sample) if image is None else image)
            _remember(key, known)
        return known

    def _found(self, sample: Sample, image: ImageArray) -> tuple[int, int]:
        assert self.reference is not None
        template = _template(self.window, self.reference, file_fingerprint(self.reference.path))
        if image.shape[0] < self.window.size[0] or image.shape[1] < self.window.size[1]:
            raise DataError(
                f"{sample.path}: the window of {self.window.title} pixels is larger than the image "
                f"({image.shape[1]}×{image.shape[0]})"
            )
        found = template.find(grey_of(image), self.window.search)[:2]
        # A template that is smaller than the window may be nearer to the image's edge than half a window.
        sides = zip(found, template.offset, self.window.size, image.shape[:2], strict=True)
        top, left = (min(max(0, start + offset), whole - side) for start, offset, side, whole in sides)
        return top, left

    def _channels(self, inner: FileReader, sample: Sample) -> Iterator[Channel]:
        corner, size = self.corner(sample), inner.size(sample)
        for path in sample.mask_paths:
            values = inner.mask(path)
            check_mask_size(sample, path, values, size)
            part = self._cut(values, corner)
            if part.any():
                # The layout's own rule for the saturation, on what is left of the region.
                yield inner.channel(sample, path, part.copy())

    def _cut(self, array: Any, corner: tuple[int, int]) -> Any:
        (top, left), (height, width) = corner, self.window.size
        return array[top : top + height, left : left + width]


@lru_cache(maxsize=16)
def _template(window: Window, reference: Sample, fingerprint: str) -> Template:
    """Read once a process, as long as the file (its ``fingerprint``) is the same."""
    image = reference.image()
    corner = window.corner(image.shape[:2], reference.path)
    middle = [start + side // 2 for start, side in zip(corner, window.size, strict=True)]
    sides = window.template or window.size
    top, left = (max(0, at - side // 2) for at, side in zip(middle, sides, strict=True))
    bottom, right = (at - side // 2 + side for at, side in zip(middle, sides, strict=True))
    grey = grey_of(image)[top:bottom, left:right]
    if grey.min() == grey.max():
        raise DataError(
            f"{reference.path}: the template of the window of {window.title} pixels is of one colour, so it cannot be "
            "looked for in other images; set its centre, a larger template, or use a fixed window"
        )
    return Template(grey.copy(), (top, left), (corner[0] - top, corner[1] - left))


_known: dict[tuple[str, str, str], tuple[int, int]] = {}
"""Where windows were found, by window, first training image and image."""
_known_lock = threading.Lock()


def _remember(key: tuple[str, str, str], corner: tuple[int, int]) -> None:
    with _known_lock:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = corner


def windowed(category: Category, window: Window) -> Category:
    """A category that consists of windows of its images. No pixel is read.

    Args:
        category: its samples keep their ids, files and masks.
        window: where; a template is taken from the first good training image.

    Raises:
        DataError: a template where there is no training image.
    """
    reference = None
    if window.place == "template":
        if not category.train:
            raise DataError(
                f"category {category.name} ({category.root}) has no good training image to take the window's template "
                "from"
            )
        reference = category.train[0]
    samples = tuple(replace(s, reader=_WindowReader(s.reader, window, reference)) for s in category.samples)
    return replace(category, samples=samples)


def placed(category: Category, cache: ArrayCache | None) -> Category:
    """Finds the windows of all images of a category, so that nobody does it again; the category as it was.

    Places are kept in the cache, where there is one. Without template windows nothing is done.

    Raises:
        DataError: an image that is too small, a template of one colour.
    """
    readers = [(s, s.reader) for s in category.samples if isinstance(s.reader, _WindowReader)]
    todo = [(sample, reader) for sample, reader in readers if reader.reference is not None]

    def find(item: tuple[Sample, _WindowReader]) -> None:
        sample, reader = item
        assert reader.reference is not None
        reference, own = file_fingerprint(reader.reference.path), file_fingerprint(sample.path)
        kind, key = f"windows-{reader.window.key}-{reference}", (reader.window.key, reference, own)
        kept = None if cache is None else cache.get(kind, own)
        if kept is not None and len(kept) == 1 and kept[0].shape == (2,):
            _remember(key, (int(kept[0][0]), int(kept[0][1])))
            return
        corner = reader.corner(sample)
        if cache is not None:
            cache.put(kind, own, (np.asarray(corner, dtype=np.int64),))

    for _ in ordered_map(find, todo):
        pass
    return category


def window_note(category: Category) -> str:
    """What a reader of a result on windows has to know; "" for whole images."""
    reader = category.samples[0].reader if category.samples else None
    if not isinstance(reader, _WindowReader):
        return ""
    how = "at one place" if reader.reference is None else "found by template matching"
    return f"windows of {reader.window.title} pixels, {how}"


def windowed_fingerprint(fingerprint: str, window: Window) -> str:
    """Of a category's fingerprint (``category_fingerprint``) that of its windows."""
    value = canonical_json(["andon-window", 1, fingerprint, window.model_dump(mode="json")])
    return hashlib.blake2b(value.encode(), digest_size=16).hexdigest()

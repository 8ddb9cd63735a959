"""Where the inspection area is in a raw image, and the image and its regions cut to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from andon.core import GOOD, BoolArray, ConfigError, DataError, ImageArray, listed
from andon.data.decode import read_image
from andon.data.matching import Template, grey_of, turned_about, turned_point
from andon.data.preparing.options import PrepareOptions, TemplateBox
from andon.data.preparing.sources import RawImage

__all__ = ["Cutter", "Place", "make_cutter"]


class Place(NamedTuple):
    """Where the inspection area is.

    Attributes:
        x, y: the middle of the part that was found (of the area, where nothing is looked for), pixels of the raw image.
        angle: degrees, counter-clockwise, that the part is turned by.
        score: correlation with the template; 1 where nothing is looked for.
        template: which was found best.
    """

    x: float
    y: float
    angle: float = 0.0
    score: float = 1.0
    template: int = 0


@dataclass(frozen=True)
class Cutter:
    """Finds the inspection area of raw images and cuts it out.

    Attributes:
        options: what was asked for.
        templates: grey values to look for.
        crop: (height, width) that is cut out; None for the whole image.
    """

    options: PrepareOptions
    templates: tuple[Template, ...]
    crop: tuple[int, int] | None

    def locate(self, image: ImageArray) -> Place:
        """The best place for a template in RGB uint8 ``[H, W, 3]``.

        Raises:
            DataError: the image is smaller than a template.
        """
        height, width = image.shape[:2]
        if not self.templates:
            return Place((width - 1) / 2, (height - 1) / 2)
        grey = grey_of(image)
        places = []
        for number, template in enumerate(self.templates):
            if any(part > whole for part, whole in zip(template.values.shape, grey.shape, strict=True)):
                raise DataError(f"{width} × {height} pixels are smaller than the template")
            found = template.locate(grey, self.options.search, self.options.rotation)
            places.append(Place(found.x, found.y, found.angle, found.score, number))
        return max(places, key=lambda place: place.score)

    def image(self, image: ImageArray, place: Place) -> ImageArray:
        """The inspection area, resized: RGB uint8.

        Raises:
            DataError: it reaches over the image's edge.
        """
        return self._resized(self._cut(image, place, mask=False))

    def mask(self, mask: BoolArray, place: Place) -> BoolArray:
        """A region's mask, cut and resized as its image: a pixel is marked where half of it or more was.

        Of a region so thin that nothing would be left, the pixels that hold most of it are marked.
        """
        cut = self._cut(mask.astype(np.uint8), place, mask=True)
        size = self.options.resize
        if size is None or size == cut.shape:
            return cut > 0
        shrinks = size[0] <= cut.shape[0] and size[1] <= cut.shape[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        share = cv2.resize(cut.astype(np.float32), size[::-1], interpolation=interpolation)
        marked = share >= 0.5
        if not marked.any() and cut.any():
            marked = share >= share.max()
        return np.asarray(marked, dtype=bool)

    def _cut(self, image: ImageArray, place: Place, *, mask: bool) -> ImageArray:
        x, y = place.x, place.y
        if self.options.upright and place.angle:
            size = (image.shape[0], image.shape[1])
            image = turned_about(image, -place.angle, nearest=mask, outside=0 if mask else None)
            x, y = turned_point(x, y, size, -place.angle)
        if self.crop is None:
            return image
        top, left = _corner(x, y, self.crop)
        height, width = self.crop
        if min(top, left) < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
            raise DataError(
                f"the crop of {width} × {height} pixels about x {x:.0f}, y {y:.0f} reaches over the edge of the image "
                f"({image.shape[1]} × {image.shape[0]})"
            )
        return image[top : top + height, left : left + width]

    def _resized(self, image: ImageArray) -> ImageArray:
        size = self.options.resize
        if size is None or size == image.shape[:2]:
            return np.ascontiguousarray(image)
        shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
        # Averaging keeps fine structure from turning into false patterns where the image becomes smaller.
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), dtype=np.uint8)


def _corner(x: float, y: float, size: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of a crop about a middle; pixel centres are whole numbers."""
    return math.floor(y - (size[0] - 1) / 2 + 0.5), math.floor(x - (size[1] - 1) / 2 + 0.5)


def make_cutter(images: Sequence[RawImage], options: PrepareOptions) -> Cutter:
    """Reads the templates.

    Args:
        images: raw ones in shooting order.
        options: of the preparation.

    Raises:
        ConfigError: a template's file is no raw image, or its box is not in it.
        DataError: it cannot be read, or is of one colour in the box.
    """
    by_name: Mapping[str, RawImage] = {image.name: image for image in images}
    templates = tuple(_template(box, images, by_name) for box in options.templates)
    crop = options.crop
    if crop is None and templates:
        sides = {template.values.shape for template in templates}
        if len(sides) > 1:
            raise ConfigError("--template: the boxes are of several sizes; say with --crop what is to be cut out")
        height, width = sides.pop()
        crop = (height, width)
    return Cutter(options, templates, crop)


def _template(box: TemplateBox, images: Sequence[RawImage], by_name: Mapping[str, RawImage]) -> Template:
    if box.file is None:
        first = next((image for image in images if image.label == GOOD), None)
        if first is None:
            raise ConfigError("--template: there is no good image to take it from; name a file before the box")
    else:
        found = by_name.get(box.file)
        if found is None:
            alike = [name for name in by_name if name.rpartition("/")[2] == box.file]
            if len(alike) != 1:
                raise ConfigError(
                    f"--template {box.file}: no raw image is called so; there are {listed(alike or by_name, 3)}"
                )
            found = by_name[alike[0]]
        first = found
    grey = grey_of(read_image(first.path))
    x, y, width, height = box.box
    if x + width > grey.shape[1] or y + height > grey.shape[0]:
        raise ConfigError(
            f"--template: the box {x},{y},{width},{height} is not in {first.name} ({grey.shape[1]} × {grey.shape[0]})"
        )
    values = grey[y : y + height, x : x + width].copy()
    if values.min() == values.max():
        raise DataError(f"{first.path}: the box {x},{y},{width},{height} is of one colour and cannot be looked for")
    return Template(values, (y, x))

"""Regions as annotation tools describe them, drawn as masks.

One rule for all tools: coordinates are continuous, pixel (0, 0) covers 0..1 in both directions, and a pixel belongs to
a shape when its middle lies inside (even–odd). Tools draw the outline's pixels as well or not, which is half a pixel
either way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from andon.core import BoolArray, DataError
from andon.data.decode import read_mask

__all__ = ["Patch", "Polygon", "Region", "Runs", "Shape", "ValueOf", "ellipse", "polygon", "rectangle"]

_CIRCLE_POINTS = 720
_FARTHEST = 1e7
"""Pixels: no corner of a shape lies further away."""
Size = tuple[int, int]


class Shape(Protocol):
    """A part of a region."""

    def draw(self, size: Size) -> BoolArray:
        """Its pixels in an image of (height, width)."""
        ...


@dataclass(frozen=True)
class Region:
    """One region of one image: a ground-truth channel.

    Attributes:
        defect: its name.
        shapes: whose union it is.
        source: where it is written, for messages ("annotations.json: annotation 12").
        size: (height, width) of the image that it was drawn on; None where that is not written.
    """

    defect: str
    shapes: tuple[Shape, ...]
    source: str
    size: Size | None = None

    def draw(self, size: Size) -> BoolArray:
        """The region's mask, bool ``[H, W]``.

        Raises:
            DataError: it was drawn on an image of another size.
        """
        if self.size is not None and self.size != size:
            raise DataError(
                f"{self.source}: drawn on an image of {self.size[1]} × {self.size[0]} pixels, the image is "
                f"{size[1]} × {size[0]}"
            )
        mask = np.zeros(size, dtype=bool)
        for shape in self.shapes:
            mask |= shape.draw(size)
        return mask


@dataclass(frozen=True)
class Polygon:
    """A closed polygon: (x, y) of its corners."""

    points: tuple[tuple[float, float], ...]

    def draw(self, size: Size) -> BoolArray:
        height, width = size
        mask = np.zeros(size, dtype=bool)
        points = np.asarray(self.points, dtype=np.float64)
        x0, y0 = points.T
        x1, y1 = np.roll(points, -1, axis=0).T
        first = max(0, math.floor(min(max(float(y0.min()), -1.0), height + 1.0)))
        last = min(height, math.ceil(max(min(float(y0.max()), height + 1.0), -1.0)))
        for row in range(first, last):
            y = row + 0.5
            cut = (y0 <= y) != (y1 <= y)
            xs = np.sort(x0[cut] + (y - y0[cut]) * (x1[cut] - x0[cut]) / (y1[cut] - y0[cut]))
            # Pixel i is inside where xs[2k] <= i + 0.5 < xs[2k + 1].
            ends = np.clip(np.ceil(xs - 0.5), 0, width).astype(int)
            for start, end in zip(ends[::2], ends[1::2], strict=True):
                mask[row, start:end] = True
        return mask


@dataclass(frozen=True)
class Runs:
    """A mask's run lengths: not marked, marked, not marked, …

    Attributes:
        counts: pixels of each run.
        box: (left, top, width, height) of the pixels that they fill.
        by_columns: whether they go down the columns (COCO) or along the rows (CVAT).
    """

    counts: tuple[int, ...]
    box: tuple[int, int, int, int]
    by_columns: bool

    def draw(self, size: Size) -> BoolArray:
        left, top, width, height = self.box
        marked = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(marked, self.counts)
        inside = flat.reshape(width, height).T if self.by_columns else flat.reshape(height, width)
        return _placed(inside, left, top, size)


@dataclass(frozen=True)
class Patch:
    """A small mask at a place.

    Attributes:
        mask: bool ``[h, w]``.
        left, top: where its first pixel lies.
    """

    mask: BoolArray
    left: int
    top: int

    def draw(self, size: Size) -> BoolArray:
        return _placed(self.mask, self.left, self.top, size)


@dataclass(frozen=True)
class ValueOf:
    """The pixels of a mask's file that have a value; None for all that are not 0."""

    path: Path
    value: int | None

    def draw(self, size: Size) -> BoolArray:
        values = read_mask(self.path, any_value=self.value is None)
        if values.shape != size:
            raise DataError(
                f"{self.path}: the mask is {values.shape[1]} × {values.shape[0]} pixels, its image "
                f"{size[1]} × {size[0]}"
            )
        return values > 0 if self.value is None else values == self.value


def _placed(inside: npt.NDArray[np.bool_], left: int, top: int, size: Size) -> BoolArray:
    """A small mask in a large one; what lies outside is cut off."""
    mask = np.zeros(size, dtype=bool)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(size[0], top + inside.shape[0]), min(size[1], left + inside.shape[1])
    if y0 < y1 and x0 < x1:
        mask[y0:y1, x0:x1] = inside[y0 - top : y1 - top, x0 - left : x1 - left]
    return mask


def polygon(points: Sequence[Sequence[float]], where: str) -> Polygon:
    """A polygon of (x, y); DataError where it has fewer than three corners or one that is no finite number."""
    corners = tuple((float(x), float(y)) for x, y in points)
    if len(corners) < 3:
        raise DataError(f"{where}: a polygon of {len(corners)} corners; it needs three")
    if not all(abs(x) <= _FARTHEST and abs(y) <= _FARTHEST for x, y in corners):
        raise DataError(f"{where}: a corner is not a finite number, or beyond any image")
    return Polygon(corners)


def rectangle(left: float, top: float, right: float, bottom: float, where: str, degrees: float = 0.0) -> Polygon:
    """A rectangle, turned clockwise by ``degrees`` about its middle as CVAT has it."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return polygon(_turned(corners, (left + right) / 2, (top + bottom) / 2, degrees), where)


def ellipse(x: float, y: float, rx: float, ry: float, where: str, degrees: float = 0.0) -> Polygon:
    """An ellipse about (x, y), as a polygon of 720 corners."""
    if not (rx > 0 and ry > 0):
        raise DataError(f"{where}: an ellipse with a radius of {min(rx, ry):g}")
    angles = np.linspace(0, 2 * np.pi, _CIRCLE_POINTS, endpoint=False)
    corners = [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]
    return polygon(_turned(corners, x, y, degrees), where)


def _turned(corners: Sequence[tuple[float, float]], x: float, y: float, degrees: float) -> list[tuple[float, float]]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x + c * (a - x) - s * (b - y), y + s * (a - x) + c * (b - y)) for a, b in corners]

"""Template matching: where in an image a piece of another one is.

Normalised cross-correlation of grey values, means taken out (``cv2.TM_CCOEFF_NORMED``): first on shrunk copies, then
around what they gave, at the image's own size. The correlation is 1 for the same piece under any light that only scales
or shifts its grey values. Where a place is wanted to a fraction of a pixel, the tiles of the template vote on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from andon.core import ImageArray

__all__ = ["Located", "Match", "Template", "grey_of", "turned_about", "turned_point"]

_COARSE_SIDE = 800
"""Longest side in pixels at which a place is first looked for; it is then refined at the image's own size."""
_LEAST_TEMPLATE = 24
"""Shorter side in pixels that a template keeps when it is made smaller."""
_TURNED_SIDE = 400
"""Longest side in pixels at which rotations are tried."""
_COARSE_STEP, _FINE_STEP = 3.0, 1.5
"""Degrees between two rotations that are tried: first over all of the range, then about the best."""
_TILES = 5
"""Tiles of a template in each direction that refine its place."""
_LEAST_TILE, _REACH = 8, 10
"""Pixels: shorter side of a tile, and how far from its place it is looked for."""
_LEAST_CONTRAST, _LEAST_TILE_SCORE = 4.0, 0.7
"""Standard deviation (grey values) that a tile must have, and correlation from which it is found."""
_AGREE, _LEAST_AGREEING, _LEAST_SHARE = 1.5, 5, 0.3
"""Pixels between tiles that agree; how many must, and which part of those that are found."""
_MOST_SCALE = 0.1

_Grey = npt.NDArray[np.uint8]


class Match(NamedTuple):
    """The best place for a template in an image.

    Attributes:
        top, left: of its first pixel, in the image turned back by ``angle``.
        score: normalised cross-correlation, −1..1 (−2 where the image is of one colour).
        angle: degrees, counter-clockwise, that the image shows the template turned by.
    """

    top: int
    left: int
    score: float
    angle: float = 0.0


class Located(NamedTuple):
    """Where a template is in an image.

    Attributes:
        x, y: of its middle, pixels; pixel centres are whole numbers.
        angle: degrees, counter-clockwise, that it is turned by.
        score: normalised cross-correlation, −1..1.
        agreed: part of its tiles that agree on the place; 0 where too few did, and the correlation alone decided.
    """

    x: float
    y: float
    angle: float
    score: float
    agreed: float


@dataclass(frozen=True)
class Template:
    """Grey values ``[h, w]`` to be looked for.

    Attributes:
        corner: where they were in the image that they are from.
        offset: from there to the corner of the window that goes with them.
    """

    values: _Grey
    corner: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    def find(self, image: _Grey, search: int | None) -> Match:
        """The best fit in grey values ``[H, W]``, at most ``search`` pixels from where it was."""
        (top, left), image = self._around(image, search)
        factor = self._factor(image)
        row, column = 0, 0
        if factor > 1:
            row, column, _ = _best(_smaller(image, factor), _smaller(self.values, factor))
            row, column = row * factor, column * factor
            # The coarse grid is a factor wide, and the edge of either shrunk image may cut off as much again.
            reach = 2 * factor
            row, column = max(0, row - reach), max(0, column - reach)
            rows, columns = self.values.shape[0] + 2 * reach, self.values.shape[1] + 2 * reach
            row = min(row, max(0, image.shape[0] - rows))
            column = min(column, max(0, image.shape[1] - columns))
            image = image[row : row + rows, column : column + columns]
        fine = _best(image, self.values)
        return Match(top + row + fine[0], left + column + fine[1], fine[2])

    def locate(self, image: _Grey, search: int | None, rotation: float) -> Located:
        """Where the middle of the template is, to a fraction of a pixel, and how far it is turned.

        The best of the rotations that are tried is refined by the template's tiles: each is looked for by itself near
        its place, and the similarity (shift, rotation, scale) that most of them agree on is taken. So neither a part of
        the template that has moved, or is hidden, nor a slightly other scale pulls the place along.

        Args:
            image: grey values ``[H, W]``, at least as large as the template.
            search: see ``find``.
            rotation: how far it may be turned in either direction, degrees.
        """
        angle = self._coarse_angle(image, search, rotation)
        tried = [angle + step for step in (0.0, -_FINE_STEP, _FINE_STEP) if angle and abs(angle + step) <= rotation]
        turned, best = image, self.find(image, search)
        for candidate in tried:
            rotated = turned_about(image, -candidate)
            match = self.find(rotated, search)
            if match.score > best.score:
                turned, best = rotated, match._replace(angle=candidate)
        rows, columns = self.values.shape
        x, y, more, agreed = self._agreed(turned, best) or (
            best.left + (columns - 1) / 2,
            best.top + (rows - 1) / 2,
            0.0,
            0.0,
        )
        x, y = turned_point(x, y, (image.shape[0], image.shape[1]), best.angle)
        return Located(x, y, best.angle + more, best.score, agreed)

    def _coarse_angle(self, image: _Grey, search: int | None, rotation: float) -> float:
        """The best of the rotations in coarse steps, looked for on small copies."""
        if not rotation > 0:
            return 0.0
        factor = max(1, min(-(-max(image.shape) // _TURNED_SIDE), min(self.values.shape) // _LEAST_TEMPLATE))
        corner = (self.corner[0] // factor, self.corner[1] // factor)
        coarse, small = Template(_smaller(self.values, factor), corner), _smaller(image, factor)
        near = None if search is None else max(1, -(-search // factor))
        scores = {angle: coarse.find(turned_about(small, -angle), near).score for angle in _angles(rotation)}
        return max(scores, key=scores.__getitem__)

    def _agreed(self, image: _Grey, match: Match) -> tuple[float, float, float, float] | None:
        """(x, y) of the middle, the rotation that was left, and the part of the tiles that agree; None for too few.

        The image is turned already so that the template is nearly upright in it.
        """
        rows, columns = (side // _TILES for side in self.values.shape)
        if min(rows, columns) < _LEAST_TILE:
            return None
        here, there = [], []
        for row in range(_TILES):
            for column in range(_TILES):
                y, x = row * rows, column * columns
                found = _tile_place(self.values[y : y + rows, x : x + columns], image, match.top + y, match.left + x)
                if found is not None:
                    here.append((x + (columns - 1) / 2, y + (rows - 1) / 2))
                    there.append(found)
        if len(here) < _LEAST_AGREEING:
            return None
        fit, inliers = cv2.estimateAffinePartial2D(
            np.asarray(here), np.asarray(there), method=cv2.RANSAC, ransacReprojThreshold=_AGREE, maxIters=500
        )
        if fit is None or int(inliers.sum()) < max(_LEAST_AGREEING, _LEAST_SHARE * len(here)):
            return None
        scale, more = math.hypot(fit[0, 0], fit[1, 0]), math.degrees(math.atan2(-fit[1, 0], fit[0, 0]))
        if abs(math.log(scale)) > _MOST_SCALE or abs(more) > _COARSE_STEP:
            return None
        x, y = fit @ np.asarray([(self.values.shape[1] - 1) / 2, (self.values.shape[0] - 1) / 2, 1.0])
        return float(x), float(y), more, float(inliers.sum()) / _TILES**2

    def _factor(self, image: _Grey) -> int:
        factor = max(1, -(-max(image.shape[0], image.shape[1]) // _COARSE_SIDE))
        most: int = min(self.values.shape[0], self.values.shape[1]) // _LEAST_TEMPLATE
        return int(max(1, min(factor, most)))

    def _around(self, image: _Grey, search: int | None) -> tuple[tuple[int, int], _Grey]:
        """The part of an image that is searched, and its corner."""
        if search is None:
            return (0, 0), image
        bounds = []
        for start, side, whole in zip(self.corner, self.values.shape, image.shape, strict=True):
            first = min(max(0, start - search), whole - side)
            bounds.append((first, min(whole, max(start + search, first) + side)))
        (top, bottom), (left, right) = bounds
        return (top, left), image[top:bottom, left:right]


def grey_of(image: ImageArray) -> _Grey:
    """Grey values ``[H, W]`` of RGB uint8 ``[H, W, 3]``."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def turned_about(
    image: npt.NDArray[np.uint8], angle: float, *, nearest: bool = False, outside: int | None = None
) -> npt.NDArray[np.uint8]:
    """An image turned counter-clockwise about its middle by ``angle`` degrees, at its size.

    Args:
        nearest: take the nearest pixel's value, as masks need it, not a mean of four.
        outside: value of what was not in the image; None continues its edge.
    """
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    value = (outside or 0,) * 3
    turned = cv2.warpAffine(image, turn, (width, height), flags=flags, borderMode=border, borderValue=value)
    return np.asarray(turned, dtype=np.uint8)


def turned_point(x: float, y: float, size: tuple[int, int], angle: float) -> tuple[float, float]:
    """Where a point of an image of (height, width) comes to when ``turned_about`` turns it by ``angle`` degrees."""
    middle_x, middle_y = (size[1] - 1) / 2, (size[0] - 1) / 2
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return middle_x + c * (x - middle_x) + s * (y - middle_y), middle_y - s * (x - middle_x) + c * (y - middle_y)


def _angles(rotation: float) -> Iterator[float]:
    """From −rotation to rotation, the smallest first: of two that fit as well the smaller one is taken."""
    yield 0.0
    for number in range(1, math.ceil(rotation / _COARSE_STEP) + 1):
        yield from (-min(number * _COARSE_STEP, rotation), min(number * _COARSE_STEP, rotation))


def _tile_place(tile: _Grey, image: _Grey, top: int, left: int) -> tuple[float, float] | None:
    """(x, y) of a tile's middle near a place, to a fraction of a pixel; None where nothing like it is there."""
    rows, columns = tile.shape
    y, x = top - _REACH, left - _REACH
    around = image[max(0, y) : y + rows + 2 * _REACH, max(0, x) : x + columns + 2 * _REACH]
    if around.shape != (rows + 2 * _REACH, columns + 2 * _REACH) or tile.std() < _LEAST_CONTRAST:
        return None
    fit = cv2.matchTemplate(np.ascontiguousarray(around), np.ascontiguousarray(tile), cv2.TM_CCOEFF_NORMED)
    fit[~np.isfinite(fit)] = -2
    row, column = (int(v) for v in np.unravel_index(int(fit.argmax()), fit.shape))
    if fit[row, column] < _LEAST_TILE_SCORE:
        return None
    down, right = _peak(fit[:, column], row), _peak(fit[row], column)
    return x + column + right + (columns - 1) / 2, y + row + down + (rows - 1) / 2


def _peak(values: npt.NDArray[np.generic], at: int) -> float:
    """How far from a largest value the top of the parabola through it and its neighbours lies, −0.5..0.5."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0


def _smaller(image: _Grey, factor: int) -> _Grey:
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    # Cut to whole blocks first: otherwise image and template would be shrunk by slightly different factors.
    whole = image[: size[1] * factor, : size[0] * factor]
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _best(image: _Grey, template: _Grey) -> tuple[int, int, float]:
    """(row, column, score) of the largest normalised cross-correlation."""
    fit = cv2.matchTemplate(np.ascontiguousarray(image), np.ascontiguousarray(template), cv2.TM_CCOEFF_NORMED)
    fit[~np.isfinite(fit)] = -2  # where the image is of one colour there is nothing to correlate with
    row, column = np.unravel_index(int(fit.argmax()), fit.shape)
    return int(row), int(column), float(fit[row, column])

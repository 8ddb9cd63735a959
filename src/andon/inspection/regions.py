"""The part of the image that counts: what lies outside ``--roi`` or inside ``--ignore`` never alarms.

A method's image score is its own affair (the mean of some distances, a re-weighted maximum) and cannot leave out a part
of the image. So where a part does not count, the score is the highest value of the map in the part that does, in
calibration and in inspection alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from andon.core import BoolArray, ConfigError, FloatArray, Prediction, Region
from andon.data import read_mask

__all__ = ["EVERYWHERE", "Readings", "Regions", "box_mask", "read_regions"]


class Readings(NamedTuple):
    """What is read off a prediction.

    Attributes:
        scores: float64 ``[B]``.
        map_maxima: float64 ``[B]``: highest value of each map where it counts; empty without maps.
        map_medians: float64 ``[B]``: median of each map where it counts; empty without maps.
    """

    scores: np.ndarray[tuple[int], np.dtype[np.float64]]
    map_maxima: np.ndarray[tuple[int], np.dtype[np.float64]]
    map_medians: np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Regions:
    """Which pixels count.

    Attributes:
        mask: bool ``[H, W]`` at the size of the images (of the reference frame, where parts are aligned); None where
            all count. Images of other sizes of the same shape are covered likewise.
    """

    mask: BoolArray | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and (self.mask.ndim != 2 or self.mask.dtype != np.bool_):
            raise ValueError(f"a mask must be bool [H, W], got {self.mask.dtype} {list(self.mask.shape)}")
        if self.mask is not None and not self.mask.any():
            raise ConfigError("roi, ignore: no pixel is left that counts")

    def on_map(self, size: tuple[int, int], region: Region) -> BoolArray | None:
        """Which pixels of a map (height, width) that covers ``region`` count: those at least half of which do.

        Raises:
            ConfigError: none does.
        """
        if self.mask is None:
            return None
        height, width = self.mask.shape
        rows = slice(round(region.top * height), round(region.bottom * height))
        columns = slice(round(region.left * width), round(region.right * width))
        seen = np.ascontiguousarray(self.mask[rows, columns], dtype=np.float32)
        smaller = size[0] * size[1] <= seen.size
        shrunk = cv2.resize(seen, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        counted: BoolArray = np.asarray(shrunk >= 0.5)
        if not counted.any():
            raise ConfigError("roi, ignore: no pixel that the method sees is left; a region must be larger")
        return counted

    def read(self, prediction: Prediction) -> Readings:
        """Scores and maps' values of a prediction.

        Raises:
            ConfigError: a part does not count, and the method gives no maps.
        """
        maps, scores = prediction.anomaly_maps, prediction.image_scores.astype(np.float64)
        if maps is None:
            if self.mask is not None:
                raise ConfigError("roi, ignore: the method gives image scores only, of which no part can be left out")
            return Readings(scores, np.empty(0), np.empty(0))
        counted = self.on_map((maps.shape[1], maps.shape[2]), prediction.region)
        flat = maps.reshape(len(maps), -1) if counted is None else maps[:, counted]
        maxima = flat.max(axis=1).astype(np.float64)
        medians = np.median(flat, axis=1).astype(np.float64)
        return Readings(scores if counted is None else maxima, maxima, medians)

    def cut(self, maps: FloatArray, region: Region) -> FloatArray:
        """Maps ``[B, h, w]`` with the lowest value of each where they do not count."""
        counted = self.on_map((maps.shape[1], maps.shape[2]), region)
        if counted is None:
            return maps
        lowest = maps.min(axis=(1, 2), keepdims=True)
        return np.where(counted, maps, lowest)


EVERYWHERE = Regions()
"""All counts."""


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> BoolArray:
    """bool ``[H, W]`` of (height, width), set in the box (x, y, width, height)."""
    x, y, width, height = box
    if min(x, y) < 0 or min(width, height) < 1 or x + width > size[1] or y + height > size[0]:
        raise ConfigError(f"roi {x},{y},{width},{height}: does not lie in the images, {size[1]} × {size[0]} pixels")
    mask = np.zeros(size, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def read_regions(roi: str | Path | None, ignore: Sequence[str | Path], size: tuple[int, int]) -> Regions:
    """Regions as the command line gives them.

    Args:
        roi: a mask's file, marked where it counts, or "x,y,width,height" in pixels; None for all.
        ignore: files of masks, marked where it does not count.
        size: (height, width) of the images.

    Raises:
        ConfigError: a mask of another size, a box that is none or outside, nothing left.
        DataError: a mask that cannot be read.
    """
    if roi is None and not ignore:
        return Regions()
    mask = np.ones(size, dtype=bool)
    if roi is not None:
        numbers = str(roi).split(",")
        if len(numbers) == 4 and not Path(roi).exists():
            try:
                x, y, width, height = (int(number) for number in numbers)
            except ValueError:
                raise ConfigError(f"roi {str(roi)!r}: expected a mask's file, or x,y,width,height in pixels") from None
            mask &= box_mask(size, (x, y, width, height))
        else:
            mask &= _marked(Path(roi), size, "roi")
    for path in ignore:
        mask &= ~_marked(Path(path), size, "ignore")
    return Regions(mask)


def _marked(path: Path, size: tuple[int, int], option: str) -> BoolArray:
    values = read_mask(path, any_value=True)
    if values.shape != size:
        raise ConfigError(
            f"{option} {path}: the mask is {values.shape[1]} × {values.shape[0]} pixels, "
            f"the images are {size[1]} × {size[0]}"
        )
    return values > 0

"""From a method's map to the image: size and place."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from andon.core import FullFrame, Region

__all__ = ["Interpolation", "place_map"]

Interpolation = Literal["bilinear", "bicubic"]
"""How a map is brought to the size of its image, see ``place_map``."""

_Map = npt.NDArray[Any]


@lru_cache(maxsize=64)
def _axis(n: int, size: int, start: float, stop: float) -> tuple[int, int, npt.NDArray[Any], npt.NDArray[Any], _Map]:
    """Linear interpolation along one axis, half-pixel centres.

    Returns:
        First image pixel whose centre lies in [start, stop], the one after the last, and for each of them the two
        map indices and the weight of the second.
    """
    centres = (np.arange(size) + 0.5) / size
    inside = np.flatnonzero((centres >= start) & (centres <= stop))
    if not len(inside):
        return 0, 0, inside, inside, np.zeros(0, dtype=np.float32)
    at = np.clip((centres[inside] - start) / (stop - start) * n - 0.5, 0, n - 1)
    lower = np.floor(at).astype(np.intp)
    upper = np.minimum(lower + 1, n - 1)
    return int(inside[0]), int(inside[-1]) + 1, lower, upper, (at - lower).astype(np.float32)


def place_map(
    anomaly_map: _Map,
    region: Region = FullFrame,
    size: tuple[int, int] = (0, 0),
    interpolation: Interpolation = "bilinear",
) -> _Map:
    """Brings a method's map to image size and to its place in the image.

    Args:
        anomaly_map: ``[h, w]``, finite.
        region: the part of the image that the map covers.
        size: (H, W) of the image.
        interpolation: "bilinear" with half-pixel centres (as ``align_corners=False``), edges extended; the result is
            float32. "bicubic" is Pillow's on the map's own type, as the official AutoVI evaluator does it (8-bit maps
            stay 8-bit); for maps of the whole image only.

    Returns:
        ``[H, W]``: float32, −inf where the centre of a pixel lies outside the region; for bicubic the map's own type
        (float32 for floats). A bicubic map that already has the size is returned as it is.
    """
    if anomaly_map.ndim != 2 or 0 in anomaly_map.shape or min(size) < 1:
        raise ValueError(f"cannot place a map {list(anomaly_map.shape)} in an image of size {size}")
    if interpolation == "bicubic":
        if region != FullFrame:
            raise ValueError("bicubic placing is for maps of the whole image")
        if anomaly_map.shape == tuple(size):
            return anomaly_map
        from PIL import Image

        if anomaly_map.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
                anomaly_map = anomaly_map.astype(np.float32, copy=False)
        image = Image.fromarray(np.ascontiguousarray(anomaly_map))
        return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    source = anomaly_map.astype(np.float32, copy=False)
    if region == FullFrame and source.shape == tuple(size):
        return source
    top, bottom, row0, row1, row_weight = _axis(source.shape[0], size[0], region.top, region.bottom)
    left, right, column0, column1, column_weight = _axis(source.shape[1], size[1], region.left, region.right)
    # Columns first, on the few rows of the map; then whole rows are mixed, which is fast.
    wide = source[:, column0] * (1 - column_weight) + source[:, column1] * column_weight
    weight = row_weight[:, None]
    placed: _Map = wide[row0]
    placed *= 1 - weight
    placed += wide[row1] * weight
    if placed.shape == tuple(size):
        return placed
    out = np.full(size, -np.inf, dtype=np.float32)
    out[top:bottom, left:right] = placed
    return out

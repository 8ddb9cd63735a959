"""OpenCV's filters as the line uses them: float32 in, float32 out, edges continued."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np

from andon.core import FloatArray

__all__ = ["dim", "gaussian", "look_up", "resized", "shifted", "thrice"]


def gaussian(field: FloatArray, sigma: float) -> FloatArray:
    """Gaussian blur of ``[H, W]`` or ``[H, W, C]``; ``sigma`` in pixels."""
    return cast(FloatArray, cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))


def look_up(field: FloatArray, column: FloatArray, row: FloatArray) -> FloatArray:
    """``field`` at fractional positions, bilinear, held at its border."""
    found = cv2.remap(field, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(FloatArray, found)


def resized(field: FloatArray, size: tuple[int, int], method: int = cv2.INTER_LINEAR) -> FloatArray:
    """``field`` at another (height, width)."""
    return cast(FloatArray, cv2.resize(field, (size[1], size[0]), interpolation=method))


def shifted(field: FloatArray, dx: float, dy: float) -> FloatArray:
    """``field`` looked at (dx, dy) pixels further on, bilinear."""
    matrix: Any = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    size = (field.shape[1], field.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(FloatArray, cv2.warpAffine(field, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def thrice(field: FloatArray) -> FloatArray:
    """``[H, W]`` as three equal channels ``[H, W, 3]``.

    NumPy broadcasts over a last axis of three in inner loops of length three; copying first is several times faster.
    """
    return cast(FloatArray, cv2.merge((field, field, field)))


def dim(image: FloatArray, factor: FloatArray) -> FloatArray:
    """Multiplies ``[H, W, 3]`` by ``[H, W]`` in place and returns it."""
    cv2.multiply(image, thrice(factor), dst=image)
    return image

"""From coarse scores to a smooth anomaly map: bilinear upsampling and Gaussian smoothing, for every method.

Both are linear and separable, so each is a small matrix for the rows and one for the columns, and so is one after the
other: a 64 × 64 map becomes a smoothed 256 × 256 one for 10 MFLOP, ten times less than filtering the large map.
Images are multiplied one by one (batched), so a map never depends on how many others are in the batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["gaussian_smooth", "upsample", "upsample_and_smooth"]


@lru_cache(maxsize=64)
def _operator(outputs: int, inputs: int, sigma: float) -> npt.NDArray[np.float64]:
    """float64 ``[outputs, inputs]``: bilinear interpolation of a line, then Gaussian smoothing.

    An array, not a tensor: while a detector is exported torch hands out tensors without values, and this is kept.
    """
    source = np.maximum((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0)
    left = source.astype(np.int64)
    right, part = np.minimum(left + 1, inputs - 1), source - left
    matrix, lines = np.zeros((outputs, inputs)), np.arange(outputs)
    matrix[lines, left] = 1 - part
    matrix[lines, right] += part
    return _smoothed(matrix, sigma) if sigma > 0 else matrix


def _smoothed(lines: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """A Gaussian along the first axis, cut at 4 σ, reflected at the ends: scipy's sums in scipy's order."""
    radius, n = int(4 * sigma + 0.5), len(lines)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights /= weights.sum()
    wide = np.pad(lines, ((radius, radius), (0, 0)), mode="symmetric")
    result: npt.NDArray[np.float64] = weights[radius] * lines
    for k in range(radius, 0, -1):
        result += weights[radius + k] * (wide[radius - k :][:n] + wide[radius + k :][:n])
    return result


def upsample_and_smooth(maps: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Bilinear interpolation (corners not aligned) to ``size``, then a Gaussian of ``sigma`` output pixels.

    Args:
        maps: float ``[B, h, w]``.
        size: (height, width) of the result.
        sigma: standard deviation in pixels of the result, cut at 4 σ, image reflected at its edges
            (``scipy.ndimage.gaussian_filter``'s defaults); 0 for none.

    Returns:
        ``[B, height, width]`` of the same type and device.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps must be [B, h, w], got {list(maps.shape)}")
    if sigma < 0:
        raise ValueError(f"sigma must not be negative, got {sigma}")
    batch, height, width = maps.shape
    rows = torch.from_numpy(_operator(size[0], height, float(sigma))).to(maps)
    columns = torch.from_numpy(_operator(size[1], width, float(sigma))).to(maps)
    across = torch.bmm(maps, columns.T.expand(batch, -1, -1))
    return torch.bmm(rows.expand(batch, -1, -1), across)


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear interpolation of ``[B, h, w]`` to ``[B, height, width]``, corners not aligned."""
    return upsample_and_smooth(maps, size, 0.0)


def gaussian_smooth(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian smoothing of float ``[B, h, w]``; equals ``scipy.ndimage.gaussian_filter`` of each map."""
    return upsample_and_smooth(maps, (maps.shape[1], maps.shape[2]), sigma)

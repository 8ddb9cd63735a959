"""Perlin's gradient noise, and the anomaly masks that DRAEM and DSR make of it.

Noise: Perlin, An image synthesizer (SIGGRAPH 1985), with the fade function of Improving noise (SIGGRAPH 2002). Masks:
Zavrtanik, Kristan & Skočaj, DRAEM (ICCV 2021; arXiv 2108.07610), section 3.3; what the paper leaves open is as in the
authors' repository (VitjanZ/DRAEM).
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import cv2
import numpy as np

from andon.core import FloatArray

__all__ = ["perlin_mask", "perlin_noise", "rotated_perlin_noise"]


@lru_cache(maxsize=64)
def _lattice(length: int, cells: int) -> tuple[FloatArray, FloatArray]:
    """How a line of ``length`` pixels takes part in its lattice points: float32 ``[length, cells + 1]`` twice.

    The first holds each pixel's two interpolation weights (they sum to 1), the second the weights times the distance
    from the lattice point, in cells.
    """
    position = np.arange(length) * (cells / length)
    cell = np.minimum(position.astype(np.int64), cells - 1)
    t = position - cell
    fade = t**3 * (t * (6 * t - 15) + 10)
    rows = np.arange(length)
    weights = np.zeros((length, cells + 1))
    weights[rows, cell], weights[rows, cell + 1] = 1 - fade, fade
    ramps = weights.copy()
    ramps[rows, cell] *= t
    ramps[rows, cell + 1] *= t - 1
    return weights.astype(np.float32), ramps.astype(np.float32)


def perlin_noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Gradient noise, float32 ``[H, W]``: about −1 … 1, 0 at lattice points.

    A unit gradient of random direction stands at every lattice point; a pixel's value interpolates what the linear
    functions of its four lattice points say there, times √2. The weights of the interpolation are products of one for
    the row and one for the column, so the whole is two products of matrices, without a loop or a gather.

    Args:
        shape: (height, width) in pixels.
        cells: lattice cells along the height and along the width; each at least 1, any number may be handed in,
            whether or not it divides the shape.
        rng: draws ``(cells[0] + 1) · (cells[1] + 1)`` directions.
    """
    if min(shape) < 1 or min(cells) < 1:
        raise ValueError(f"shape and cells must be at least 1, not {shape} and {cells}")
    angles = rng.random((cells[0] + 1, cells[1] + 1), dtype=np.float32) * np.float32(2 * np.pi)
    row_weights, row_ramps = _lattice(shape[0], cells[0])
    column_weights, column_ramps = _lattice(shape[1], cells[1])
    scale = np.float32(2**0.5)
    down = row_ramps @ (np.cos(angles) * scale) @ column_weights.T
    across = row_weights @ (np.sin(angles) * scale) @ column_ramps.T
    return cast(FloatArray, down + across)


def rotated_perlin_noise(
    shape: tuple[int, int], rng: np.random.Generator, *, exponents: tuple[int, int] = (0, 5), rotation: float = 90.0
) -> FloatArray:
    """Perlin noise of random lattice and direction, float32 ``[H, W]``.

    Args:
        shape: (height, width) in pixels.
        rng: draws everything.
        exponents: the numbers of cells are 2^k, k drawn uniformly from this range (both ends included), for height
            and width by themselves.
        rotation: largest angle by which the noise is rotated about the image's centre, in degrees, either way;
            what comes in from outside is 0.
    """
    cells = 2 ** rng.integers(exponents[0], exponents[1] + 1, 2)
    noise = perlin_noise(shape, (int(cells[0]), int(cells[1])), rng)
    centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, rng.uniform(-rotation, rotation), 1.0)
    return cast(FloatArray, cv2.warpAffine(noise, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR, borderValue=0))


def perlin_mask(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    exponents: tuple[int, int] = (0, 5),
    threshold: float = 0.5,
    rotation: float = 90.0,
) -> FloatArray:
    """The region of one artificial anomaly: where ``rotated_perlin_noise`` is above a threshold; float32 ``[H, W]`` of
    zeros and ones. It may be empty (coarse lattices often stay below the threshold), or consist of many pieces.
    """
    noise = rotated_perlin_noise(shape, rng, exponents=exponents, rotation=rotation)
    return (noise > threshold).astype(np.float32)

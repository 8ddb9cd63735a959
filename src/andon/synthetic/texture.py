"""Procedural surface textures: float32 fields of zero mean and unit deviation, made once a station.

Each is a tile of ``SIZE``² pixels that wraps around, so a part of any size and place can read from it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import cv2
import numpy as np

from andon.core import FloatArray
from andon.synthetic.randomness import stream

__all__ = ["SIZE", "Textures", "octaves", "textures"]

SIZE = 1024


def _tile(rng: np.random.Generator, cells_y: int, cells_x: int, size: int = SIZE) -> FloatArray:
    """Smooth noise with ``cells`` knots a side that wraps around: cubic interpolation of white noise."""
    knots = rng.standard_normal((cells_y, cells_x), dtype=np.float32)
    pad_y, pad_x = min(4, cells_y), min(4, cells_x)
    padded = np.pad(knots, ((pad_y, pad_y), (pad_x, pad_x)), mode="wrap")
    step_y, step_x = size / cells_y, size / cells_x
    matrix = np.array([[1 / step_x, 0, pad_x - 0.5], [0, 1 / step_y, pad_y - 0.5]], dtype=np.float64)
    out = cv2.warpAffine(
        padded, matrix, (size, size), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return cast(FloatArray, out)


def _standardised(field: FloatArray) -> FloatArray:
    out: FloatArray = ((field - field.mean()) / field.std()).astype(np.float32)
    return out


def octaves(rng: np.random.Generator, first: int, count: int, gain: float = 0.5, aspect: int = 1) -> FloatArray:
    """Multi-octave noise: ``count`` octaves from ``first`` cells a side, each ``gain`` times the one before.

    Args:
        aspect: how much longer the grain is along x than along y.
    """
    out = np.zeros((SIZE, SIZE), np.float32)
    amplitude = 1.0
    for octave in range(count):
        cells = min(first << octave, SIZE // 2)
        out += amplitude * _tile(rng, cells, max(2, cells // aspect))
        amplitude *= gain
    return _standardised(out)


class Textures:
    """The textures of one station.

    Attributes:
        cloud: wide soft mottling (dirt, oil, unevenness of light).
        grain: fine even grain (moulded plastic).
        cast: bumps of a sand casting.
        brushed: fine lines along x (brushed, rolled or drawn metal).
        weave: cloth.
        scratch: thin, sparse scratches, 0..1, not standardised.
        speck: sparse specks, 0..1, not standardised.
    """

    def __init__(self, seed: int, *names: str | int) -> None:
        def rng(kind: str) -> np.random.Generator:
            return stream(seed, *names, "texture", kind)

        self.cloud = octaves(rng("cloud"), 5, 7, 0.58)
        self.grain = octaves(rng("grain"), 200, 2, 0.8)
        # A sand casting: fine round grains with a few coarser pits.
        sand = octaves(rng("cast"), 400, 2, 0.6)
        pits = octaves(rng("pits"), 170, 2)
        self.cast = _standardised(sand + 0.25 * sand**2 - 0.5 * np.maximum(pits - 1.2, 0))
        self.brushed = octaves(rng("brushed"), 256, 2, 0.7, aspect=48)
        self.weave = self._weave(rng("weave"))
        self.scratch = self._scratches(rng("scratch"))
        self.speck = self._specks(rng("speck"))

    @staticmethod
    def _weave(rng: np.random.Generator) -> FloatArray:
        y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
        period = SIZE / 256
        threads = np.sin(2 * np.pi * (x + y) / period) + 0.6 * np.sin(2 * np.pi * (x - y) / period)
        return _standardised(threads.astype(np.float32) + 0.6 * octaves(rng, 128, 2))

    @staticmethod
    def _scratches(rng: np.random.Generator) -> FloatArray:
        field = np.zeros((SIZE, SIZE), np.uint8)
        for _ in range(260):
            start = rng.uniform(0, SIZE, 2)
            angle = rng.normal(0.4, 0.9)
            length = rng.gamma(2.0, 28.0)
            bend = rng.normal(0, 0.12)
            steps = np.linspace(0, 1, 12)
            x = start[0] + length * steps * np.cos(angle + bend * steps)
            y = start[1] + length * steps * np.sin(angle + bend * steps)
            points = np.round(np.stack([x, y], 1) * 16).astype(np.int32)
            cv2.polylines(field, [points], False, int(rng.integers(70, 255)), 1, cv2.LINE_AA, 4)
        return field.astype(np.float32) / np.float32(255)

    @staticmethod
    def _specks(rng: np.random.Generator) -> FloatArray:
        field = np.zeros((SIZE, SIZE), np.uint8)
        for _ in range(1300):
            x, y = rng.integers(0, SIZE, 2)
            radius = min(0.5 + rng.exponential(0.7), 4.0)
            cv2.circle(
                field, (int(x) * 16, int(y) * 16), int(radius * 16), int(rng.integers(90, 255)), -1, cv2.LINE_AA, 4
            )
        return field.astype(np.float32) / np.float32(255)


@lru_cache(maxsize=4)
def textures(seed: int, *names: str | int) -> Textures:
    """The textures of the station ``names``, kept for the process (7 fields of 4 MB)."""
    return Textures(seed, *names)

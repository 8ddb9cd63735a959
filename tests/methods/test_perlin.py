from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy import ndimage

from andon.core import FloatArray
from andon.methods._perlin import perlin_mask, perlin_noise


def literal_noise(shape: tuple[int, int], cells: tuple[int, int], angles: FloatArray) -> FloatArray:
    """Perlin's definition, pixel by pixel."""
    noise = np.zeros(shape, np.float32)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = row * cells[0] / shape[0], column * cells[1] / shape[1]
            i, j = int(y), int(x)
            values = {}
            for a in (0, 1):
                for b in (0, 1):
                    angle = float(angles[i + a, j + b])
                    values[a, b] = math.cos(angle) * (y - i - a) + math.sin(angle) * (x - j - b)
            u, v = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (y - i, x - j))
            upper = values[0, 0] * (1 - v) + values[0, 1] * v
            lower = values[1, 0] * (1 - v) + values[1, 1] * v
            noise[row, column] = math.sqrt(2) * (upper * (1 - u) + lower * u)
    return noise


@pytest.mark.parametrize(
    ("shape", "cells"),
    [((32, 32), (4, 8)), ((24, 40), (1, 1)), ((30, 17), (4, 3)), ((20, 20), (32, 2))],
    ids=["divides", "one cell", "does not divide", "cells finer than pixels"],
)
def test_noise_is_perlins(shape: tuple[int, int], cells: tuple[int, int]) -> None:
    drawn = np.random.default_rng(3).random((cells[0] + 1, cells[1] + 1), dtype=np.float32)
    expected = literal_noise(shape, cells, drawn * np.float32(2 * np.pi))
    noise = perlin_noise(shape, cells, np.random.default_rng(3))
    assert noise.shape == shape
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise, expected, atol=2e-6)


def test_noise_is_zero_at_lattice_points_and_smooth_between() -> None:
    noise = perlin_noise((64, 128), (4, 8), np.random.default_rng(0))
    np.testing.assert_allclose(noise[::16, ::16], 0, atol=1e-6)
    # The function's slope is bounded: no pixel differs from its neighbour by more than a few sixteenths of a cell.
    assert np.abs(np.diff(noise, axis=0)).max() < 0.3
    assert np.abs(np.diff(noise, axis=1)).max() < 0.3
    assert np.abs(noise).max() > 0.5


def test_noise_has_the_variance_of_its_definition() -> None:
    """Of a pixel with fade u, v at (s, t) in its cell: the sum over its four corners of weight² · distance²."""
    centre = perlin_noise((512, 512), (256, 256), np.random.default_rng(1))[1::2, 1::2]  # the cells' centres
    # Weights 1/4 each, squared distance 1/2, a random direction takes half of it, times √2².
    assert centre.var() == pytest.approx(4 * (1 / 16) * (1 / 2) * (1 / 2) * 2, rel=0.03)
    assert centre.mean() == pytest.approx(0, abs=0.01)


def test_noise_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        perlin_noise((8, 8), (0, 1), np.random.default_rng(0))


def test_mask_is_a_function_of_the_generator() -> None:
    first, again, other = (perlin_mask((48, 64), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == (48, 64)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_masks_statistics() -> None:
    """Share of area, pieces, emptiness over many masks, against the definition carried out step by step."""
    rng, reference = np.random.default_rng(0), np.random.default_rng(1)
    masks = np.stack([perlin_mask((64, 64), rng) for _ in range(600)])
    assert set(np.unique(masks)) == {0.0, 1.0}

    expected = []
    for _ in range(600):
        cells = (2 ** int(reference.integers(0, 6)), 2 ** int(reference.integers(0, 6)))
        noise = perlin_noise((64, 64), cells, reference)
        expected.append(ndimage.rotate(noise, reference.uniform(-90, 90), reshape=False, order=1) > 0.5)
    area, expected_area = masks.mean(axis=(1, 2)), np.mean(expected, axis=(1, 2))
    deviation = math.sqrt(area.var() / 600 + expected_area.var() / 600)
    assert abs(area.mean() - expected_area.mean()) < 4 * deviation
    assert abs((area == 0).mean() - (expected_area == 0).mean()) < 0.08
    pieces = [ndimage.label(mask)[1] for mask in masks]
    expected_pieces = [ndimage.label(mask)[1] for mask in expected]
    assert np.median(pieces) == pytest.approx(np.median(expected_pieces), abs=4)


def test_mask_options() -> None:
    coarse = [perlin_mask((64, 64), np.random.default_rng(i), exponents=(1, 1), rotation=0) for i in range(40)]
    fine = [perlin_mask((64, 64), np.random.default_rng(i), exponents=(4, 4), rotation=0) for i in range(40)]
    assert max(ndimage.label(mask)[1] for mask in coarse) <= 8
    assert min(ndimage.label(mask)[1] for mask in fine) > 8
    low = perlin_mask((64, 64), np.random.default_rng(0), threshold=0.1, exponents=(3, 3))
    high = perlin_mask((64, 64), np.random.default_rng(0), threshold=0.5, exponents=(3, 3))
    assert 0 < high.sum() < low.sum()
    assert np.all(high <= low)


def test_rotation_leaves_nothing_outside() -> None:
    """At 45° a square's corners come from outside: there the mask is empty, at any threshold above 0."""
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        cells = 2 ** rng.integers(3, 4, 2)
        rng.random((cells[0] + 1, cells[1] + 1), dtype=np.float32)
        angle = rng.uniform(-90, 90)
        if 35 < abs(angle) < 55:
            found += 1
            matrix = cv2.getRotationMatrix2D((31.5, 31.5), angle, 1.0)
            inside = cv2.warpAffine(np.ones((64, 64), np.float32), matrix, (64, 64)) > 0
            mask = perlin_mask((64, 64), np.random.default_rng(seed), exponents=(3, 3), threshold=1e-3)
            assert mask[inside].any()
            assert not mask[~inside].any()
            assert (~inside).sum() > 300
    assert found > 10

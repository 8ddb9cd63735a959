"""What DRAEM and DSR share."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from andon.methods._reconstruction import largest_average, rotated


def test_rotation_by_quarters_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(rotated(image, 90), np.rot90(image))
    np.testing.assert_array_equal(rotated(image, 0), image)


def test_the_score_is_the_largest_average_over_windows() -> None:
    masks = np.random.default_rng(1).random((2, 1, 20, 24), dtype=np.float32)
    expected = [uniform_filter(mask[0].astype(np.float64), 5, mode="constant").max() for mask in masks]
    np.testing.assert_allclose(largest_average(torch.from_numpy(masks), 5).numpy(), expected, rtol=1e-5)

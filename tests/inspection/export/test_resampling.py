"""Resizing by tensor operations against Pillow and OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import ImageArray
from andon.data import Transform
from andon.inspection.export._resampling import Resize, antialias_weights, bilinear_taps


def resized(image: ImageArray, transform: Transform) -> ImageArray:
    grey = torch.from_numpy(image).permute(2, 0, 1).to(torch.float32)
    found = Resize(transform, (image.shape[0], image.shape[1]))(grey).permute(1, 2, 0).numpy()
    assert np.array_equal(found, found.astype(np.uint8))
    return found.astype(np.uint8)


@given(
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.tuples(st.integers(8, 80), st.integers(8, 80)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_it_is_the_librarys_to_the_last_grey_level(
    size: tuple[int, int], to: tuple[int, int], antialias: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    image[rng.random(size) < 0.3] = 255  # sums at the end of the scale
    transform = Transform(size=to, antialias=antialias)
    assert np.array_equal(resized(image, transform), transform.resize(image))


@pytest.mark.parametrize("size", [(750, 1000), (400, 400), (1500, 30), (30, 1500), (512, 512), (256, 300)])
@pytest.mark.parametrize("antialias", [True, False])
def test_sizes_of_cameras(size: tuple[int, int], antialias: bool) -> None:
    # Of a tall image Pillow may take the height first, depending on its version.
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    transform = Transform(size=(256, 256), antialias=antialias)
    assert np.array_equal(resized(image, transform), transform.resize(image))


def test_an_image_of_one_grey_level_keeps_it() -> None:
    for level in (0, 1, 127, 254, 255):
        image = np.full((77, 91, 3), level, dtype=np.uint8)
        for antialias in (True, False):
            assert (resized(image, Transform(size=(40, 120), antialias=antialias)) == level).all()


def test_weights_by_hand() -> None:
    one = 1 << 22
    # Halving: triangles of half width 2 about 1 and 3; the first, cut off at the border: ¾, ¾, ¼ of 1¾.
    assert antialias_weights(4, 2)[0].tolist() == [round(one * w / 7) for w in (3, 3, 1, 0)]
    positions, weights = bilinear_taps(4, 2)
    assert positions.tolist() == [[0, 1], [2, 3]]
    assert weights.tolist() == [[1024, 1024], [1024, 1024]]
